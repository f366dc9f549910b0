"""Token ids: packed English sentences, lines of a file, or seeded random ids. No torch."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ceilings import files
from ceilings.errors import CellFailure, UserError
from ceilings.models import tokenizer as tokenizers
from ceilings.models.weights_folder import TOKENIZER, read_config
from ceilings.workload.tensors import TensorSpec

if TYPE_CHECKING:
    from tokenizers import Tokenizer

Array = np.ndarray


PREFIX = 4
"""Tokens at the beginning of a prompt that no other prompt begins with: whoever keeps the cache of a prefix that
requests share would answer a part of them without work."""

SKIPPED = 64
"""Tokens of a text before a prompt begins, at most."""

TRIES = 100
"""Draws of a prompt until none of those that begin alike is left."""


@dataclasses.dataclass(frozen=True)
class Rows:
    """Rows of token ids.

    Attributes:
        ids: int64 (rows, sequence).
        real: Tokens of each row that are no padding, int64 (rows,). Padding stands on the right.
        source: ``corpus``, ``random`` or ``texts`` (of a file).
    """

    ids: Array
    real: Array
    source: str

    @property
    def mask(self) -> Array:
        """1 for what counts, 0 for padding: int64 (rows, sequence)."""
        return (np.arange(self.ids.shape[1]) < self.real[:, None]).astype(np.int64)


@dataclasses.dataclass(frozen=True)
class Special:
    """Ids with a meaning: of padding, and those that open and close a text where there are such."""

    padding: int
    start: tuple[int, ...] = ()
    end: tuple[int, ...] = ()


def sample(
    weights_dir: Path | str, tensor: TensorSpec, size: tuple[int, int], *, seed: int, lengths: Mapping[str, Any] | None
) -> Rows:
    """Rows of token ids.

    Args:
        weights_dir: A weights folder; its tokenizer is used if it has one.
        tensor: The input whose ids these are.
        size: Rows, and tokens a row, padding included.
        seed: Same seed, same rows.
        lengths: None: every row is full. ``{"share": 0.5}``: so much of every row is. ``{"file": PATH}``: lines of
            text, one a row, cut to the sequence.

    Raises:
        UserError: No such file.
        CellFailure: No tokenizer to read it with, or one of another model.
    """
    rng = np.random.default_rng(seed)
    count, sequence = size
    config = read_config(weights_dir)
    tokenizer = tokenizers.read(weights_dir)
    special = special_ids(config, tensor, tokenizer)
    if tokenizer is not None:
        tokenizer.no_padding()
    if lengths and "file" in lengths:
        if tokenizer is None:
            raise CellFailure(
                "unsupported",
                f"lengths follow the texts of {lengths['file']}, but {weights_dir} has no {TOKENIZER} to read them "
                "with; use weights that come with one, or give lengths as a share",
            )
        rows = _lines(_texts(lengths["file"]), tokenizer, special, size, rng, path=Path(weights_dir, TOKENIZER))
    else:
        real = _real(lengths, sequence)
        if tensor.dims[-1:] == ("prompt",):
            ids, source = _prompts(tensor, special, tokenizer, size, rng)
        elif tokenizer is not None and tokenizers.reads_english(tokenizer):
            ids, source = _sentences(tokenizer, count, real, rng), "corpus"
        else:
            ids, source = _random(tensor, special, count, real, rng), "random"
        padded = np.full((count, sequence), special.padding, np.int64)
        padded[:, :real] = ids
        rows = Rows(padded, np.full(count, real), source)
    if rows.ids.max() > tensor.high:
        raise CellFailure(
            "damaged",
            f"{Path(weights_dir, TOKENIZER)} gives the id {rows.ids.max()}, but the model's largest is {tensor.high}; "
            "put the tokenizer of this model beside its weights",
        )
    return rows


def special_ids(config: Mapping[str, Any], tensor: TensorSpec, tokenizer: Tokenizer | None = None) -> Special:
    """The ids with a meaning: as the configuration says, else the tokenizer."""

    def known(key: str) -> int | None:
        value = config.get(key)
        return value if isinstance(value, int) and tensor.low <= value <= tensor.high else None

    padding, start, end = known("pad_token_id"), known("bos_token_id"), known("eos_token_id")
    if config.get("model_type") == "clip_text_model" and end == 2:
        end = tensor.high  # Older configurations say 2, and the model then takes the largest id for the end.
    if padding is None and tokenizer is not None and tokenizer.padding:
        padding = tokenizer.padding["pad_id"]
    return Special(
        tensor.low if padding is None else padding,
        () if start is None else (start,),
        () if end is None else (end,),
    )


def _real(lengths: Mapping[str, Any] | None, sequence: int) -> int:
    if not lengths:
        return sequence
    share = lengths.get("share")
    if set(lengths) != {"share"} or isinstance(share, bool) or not isinstance(share, int | float) or not 0 < share <= 1:
        raise UserError(f'lengths are {dict(lengths)!r}; give {{"share": above 0, at most 1}} or {{"file": PATH}}')
    return max(1, round(share * sequence))


def _random(tensor: TensorSpec, special: Special, count: int, sequence: int, rng: np.random.Generator) -> Array:
    """Ids without a meaning, between those that open and close a text."""
    meant = sorted({special.padding, *special.start, *special.end})
    ids = rng.integers(0, tensor.high - tensor.low + 1 - len(meant), (count, sequence), dtype=np.int64) + tensor.low
    for value in meant:
        ids += ids >= value
    if sequence > len(special.start) + len(special.end):
        ids[:, : len(special.start)] = special.start
        ids[:, sequence - len(special.end) :] = special.end
    return ids


def _sentences(tokenizer: Tokenizer, count: int, sequence: int, rng: np.random.Generator) -> Array:
    """Rows of whole sentences in random order, cut at the end so that no row is padded."""
    sentences = [encoded.ids for encoded in tokenizer.encode_batch(tokenizers.corpus(), add_special_tokens=False)]
    start, end = tokenizers.around(tokenizer)
    if sequence <= len(start) + len(end):
        start, end = [], []
    rows = np.empty((count, sequence), np.int64)
    for row in rows:
        body: list[int] = []
        while len(body) < sequence:
            for index in rng.permutation(len(sentences)):
                body += sentences[index]
        row[:] = [*start, *body[: sequence - len(start) - len(end)], *end]
    return rows


def _prompts(
    tensor: TensorSpec, special: Special, tokenizer: Tokenizer | None, size: tuple[int, int], rng: np.random.Generator
) -> tuple[Array, str]:
    """Beginnings of texts without ids that open or close one, no two of which begin alike; and where they come from.

    Raises:
        CellFailure: There are not so many.
    """
    count, length = size
    spoken = tokenizer is not None and tokenizers.reads_english(tokenizer)
    meant = {special.padding, *special.start, *special.end}
    plain = np.array([value for value in range(tensor.low, tensor.high + 1) if value not in meant] or [tensor.low])
    if spoken:
        assert tokenizer is not None
        sentences = [encoded.ids for encoded in tokenizer.encode_batch(tokenizers.corpus(), add_special_tokens=False)]

    def draw() -> Array:
        if not spoken:
            return rng.choice(plain, length)
        body: list[int] = []
        skipped = int(rng.integers(SKIPPED))  # so that there are more beginnings than sentences
        while len(body) < length + skipped:
            for index in rng.permutation(len(sentences)):
                body += sentences[index]
        return np.array(body[skipped : skipped + length])

    rows, begun = np.empty((count, length), np.int64), set[bytes]()
    for row in rows:
        for _ in range(TRIES):
            row[:] = draw()
            if (start := row[:PREFIX].tobytes()) not in begun:
                begun.add(start)
                break
        else:
            raise CellFailure(
                "unsupported",
                f"cannot make {count} prompts of {length} tokens that begin otherwise; use longer prompts, smaller "
                "batches or fewer inputs",
            )
    return rows, "corpus" if spoken else "random"


def _texts(file: Any) -> list[str]:
    """Lines of a file of texts that are not blank."""
    path = files.expanded(str(file))
    try:
        texts = [line for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"the file of texts {path} cannot be read ({error}); correct lengths.file") from None
    if not texts:
        raise UserError(f"the file of texts {path} holds no line of text; put one text on each line")
    return texts


def _lines(
    texts: list[str],
    tokenizer: Tokenizer,
    special: Special,
    size: tuple[int, int],
    rng: np.random.Generator,
    *,
    path: Path,
) -> Rows:
    """Texts in random order, from the start again when they are used up."""
    count, sequence = size
    tokenizer.enable_truncation(sequence)
    order = np.concatenate([rng.permutation(len(texts)) for _ in range(-(-count // len(texts)))])[:count]
    ids = np.full((count, sequence), special.padding, np.int64)
    real = np.empty(count, np.int64)
    for row, encoded in enumerate(tokenizers.encode(tokenizer, [texts[index] for index in order], path)):
        real[row] = len(encoded.ids)
        ids[row, : real[row]] = encoded.ids
    return Rows(ids, real, "texts")

"""Token ids for a model: packed English sentences where there is a tokenizer, else seeded random ids. No torch."""

from __future__ import annotations

from importlib import resources
from pathlib import Path

import numpy as np

from ceilings.errors import UserError
from ceilings.models.weights import REMEDY, TOKENIZER, positions, read_config

Array = np.ndarray


def sample(weights_dir: Path | str, count: int, sequence: int, seed: int) -> tuple[Array, str]:
    """Distinct rows of token ids without padding.

    Args:
        weights_dir: A weights folder; its tokenizer is used if it has one.
        count: How many rows.
        sequence: Tokens a row.
        seed: Same seed, same rows.

    Returns:
        ``input_ids`` int64 (count, sequence) and where they come from, ``corpus`` or ``random``.

    Raises:
        UserError: The sequence is longer than the model allows, or too short for ``count`` distinct rows.
    """
    config = read_config(weights_dir)
    if count < 1 or sequence < 1:
        raise UserError(f"cannot make {count} inputs of {sequence} tokens; both must be at least 1")
    if sequence > positions(config):
        raise UserError(
            f"sequence {sequence} is longer than the {positions(config)} positions of {weights_dir}; shorten it"
        )
    rng = np.random.default_rng(seed)
    tokenizer = Path(weights_dir, TOKENIZER)
    if tokenizer.exists():
        rows, source = _sentences(tokenizer, count, sequence, rng), "corpus"
    else:
        # Id 0 is the padding token of these vocabularies: an input that is all real tokens has none.
        rows, source = rng.integers(1, int(config["vocab_size"]), (count, sequence), dtype=np.int64), "random"
    if len(np.unique(rows, axis=0)) < count:
        raise UserError(
            f"cannot make {count} distinct inputs of {sequence} tokens; use longer sequences or fewer inputs"
        )
    return rows, source


def _sentences(tokenizer: Path, count: int, sequence: int, rng: np.random.Generator) -> Array:
    """Rows of whole sentences in random order, cut at the end so that no row is padded."""
    from tokenizers import Tokenizer

    try:
        encoder = Tokenizer.from_file(str(tokenizer))
    except Exception as error:  # the library raises plain Exception
        raise UserError(f"{tokenizer} is damaged ({error}); {REMEDY}") from None
    encoder.no_padding()
    encoder.no_truncation()
    text = resources.files("ceilings.models").joinpath("corpus.txt").read_text(encoding="utf-8")
    sentences = [encoded.ids for encoded in encoder.encode_batch(text.splitlines(), add_special_tokens=False)]
    # An empty text shows which special tokens this tokenizer puts around a text; the last one closes it.
    special = encoder.encode("").ids
    if sequence <= len(special):
        special = []
    start, end = special[:-1], special[-1:]
    rows = np.empty((count, sequence), np.int64)
    for row in rows:
        body: list[int] = []
        while len(body) < sequence:
            for index in rng.permutation(len(sentences)):
                body += sentences[index]
        row[:] = [*start, *body[: sequence - len(special)], *end]
    return rows

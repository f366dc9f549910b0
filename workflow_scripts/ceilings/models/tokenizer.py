"""The tokenizer of a weights folder. No torch."""

from __future__ import annotations

import json
from collections.abc import Sequence
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING

from ceilings.errors import CellFailure, UserError
from ceilings.models.weights_folder import REMEDY, TOKENIZER

if TYPE_CHECKING:
    from tokenizers import Encoding, Tokenizer


def read(folder: Path | str, shown: Path | None = None) -> Tokenizer | None:
    """The folder's tokenizer, without truncation of its own; None where there is none.

    Args:
        folder: A weights folder.
        shown: The file to name where it is damaged, if another than that in the folder.

    Raises:
        UserError: It is damaged.
    """
    path = Path(folder, TOKENIZER)
    if not path.exists():
        return None
    from tokenizers import Tokenizer

    try:
        tokenizer = Tokenizer.from_file(str(path))
    except Exception as error:  # the library raises plain Exception
        remedy = REMEDY if shown is None else "put an undamaged copy there"
        raise UserError(f"{shown or path} is damaged ({error}); {remedy}") from None
    tokenizer.no_truncation()
    return tokenizer


def corpus() -> list[str]:
    """The English sentences that come with this package."""
    return resources.files("ceilings.models").joinpath("corpus.txt").read_text(encoding="utf-8").splitlines()


def reads_english(tokenizer: Tokenizer) -> bool:
    """Whether a vocabulary knows English words.

    One of DNA, proteins, bytes or letters does not: most of a text is unknown to it, or each letter is a token, or it
    has no token for what it does not know and cannot read the text at all.
    """
    texts = corpus()[:40]
    unknown = _unknown(tokenizer)
    tokens = covered = 0
    try:
        read = tokenizer.encode_batch(texts, add_special_tokens=False)
    except Exception:  # the library raises plain Exception
        return False
    for text, encoded in zip(texts, read, strict=True):
        for identity, (start, end) in zip(encoded.ids, encoded.offsets, strict=True):
            if identity not in unknown and (part := text[start:end].strip()):
                tokens += 1
                covered += len(part)
    letters = sum(len("".join(text.split())) for text in texts)
    return covered > 0.5 * letters and covered > 1.5 * tokens


def around(tokenizer: Tokenizer) -> tuple[list[int], list[int]]:
    """The ids that a tokenizer puts before and after a text."""
    for text in ("a film", "A", ""):
        body, whole = tokenizer.encode(text, add_special_tokens=False).ids, tokenizer.encode(text).ids
        for start in range(len(whole) - len(body) + 1):
            if body and whole[start : start + len(body)] == body:
                return whole[:start], whole[start + len(body) :]
    return [], []


def encode(tokenizer: Tokenizer, texts: Sequence[str], path: Path) -> list[Encoding]:
    """Texts of a user, with special tokens.

    Args:
        tokenizer: What reads them.
        texts: What is read.
        path: The tokenizer's file, for the message.

    Raises:
        CellFailure: They hold what the tokenizer cannot read.
    """
    try:
        return tokenizer.encode_batch(list(texts))
    except Exception as error:  # the library raises plain Exception
        raise CellFailure(
            "unsupported", f"{path} cannot read the texts ({error}); give texts in its language, or another tokenizer"
        ) from None


def _unknown(tokenizer: Tokenizer) -> set[int]:
    """The id of what a vocabulary does not know."""
    model = json.loads(tokenizer.to_str())["model"]
    named = tokenizer.token_to_id(model["unk_token"]) if model.get("unk_token") else None
    return {value for value in (named, model.get("unk_id")) if value is not None}

"""How far generated text is from the FP32 reference's, and whether rounding explains it. numpy only.

Rounding gives other logits, so where two tokens are nearly as likely it may choose the other one, and from there on the
row is another text. So what is compared is (a) that these are tokens, (b) the logits of the first tokens, within the
precision's tolerance, those of decode steps not much farther off than those of the prefill, and (c) every token of
every text that is not the reference's: the reference reads that text too (``ceilings.models.token_reference.gaps``),
and says how much more it likes another token at each place, in units of the error that this runtime showed in (b).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ceilings.workload.generation import PROBES, ROUNDED

Arrays = Mapping[str, np.ndarray]

EXPLAINED = 8.0
"""By so many rms errors of a difference of two logits may the reference prefer another token. The errors are those of
the first tokens, and a single context's are up to twice those. Right decoders of 8 layers had 3.6 at most in 55,000
tokens, half of them in BF16; one empty slot among 70 had 12 at least, grosser faults 60 and more."""

ROWS_BEYOND = 4.0
"""One token's logits may differ by so many times the tolerance: of many one may be another text's, the whole near."""

EXPECTED = 4.0
"""Logits may be off by so many times what rounding in the precision moves those of this model by, where the reference
says it. Runtimes and PyTorch in half precision were 0.8 to 1.5 times as far off, in models of 2 to 24 layers."""

GROWTH, NEGLIGIBLE = 4.0, 0.05
"""Logits of decode steps may be off by so many times what those of the prefill are, or by so much of the tolerance.
Both are rounded alike (in tests by less than twice); what a cache holds wrongly is in the decode steps alone, and a
tolerance that fits every model of a precision is wide enough for it."""

ALIKE = 2.5
"""Beyond so many times the prefill's they are flagged: a cache in FP8 beside BF16 makes them 2.5 to 4 times,
and two right contexts by chance up to 2.2."""

ROUNDING = 32 * 2.0**-23
"""Least error of a logit over the size of logits, also where the compared ones happen to be equal: sums of FP32 in
another order."""

SINGLE = 1e-4
"""Relative L2 of logits above which FP32 alone does not explain them. It gives some 1e-6; products in FP16 or TF32,
whose mantissas are equally long, some 5e-4, which the tolerance of FP32 lets pass."""

FEWEST = 4
"""Tokens from which on a row of a single token counts as one that repeats itself."""


def compare(outputs: Arrays, reference: Arrays, precision: str = "") -> dict[str, Any]:
    """Compare what a runtime generated with what the reference did.

    Args:
        outputs: ``tokens`` (elements, batch, generated), ``ids`` and ``logits`` (elements, rows, checked, top), and
            where the logits are of another request than the tokens, the first tokens of that one, ``logged`` (elements,
            rows, checked).
        reference: As ``ceilings.models.token_reference`` has it.
        precision: Of the cell or the graph.

    Returns:
        The fields of a parity: ``relative_l2``, ``cosine``, ``max_abs``, ``max_rel``, ``row_l2`` of the compared
        logits, all less the mean of the reference's; ``prefill_l2`` and ``decode_l2``, the relative L2 of the first
        tokens' logits and of the later ones', None where there are none; ``rows`` of logits compared; ``logit_error``,
        the rms error of a difference of two of them; ``token_agreement``, the share of equal tokens; ``rows_equal``,
        the share of rows without a difference; ``first_difference``, the earliest position of one; ``generated``, the
        tokens of a request; ``problem``, why there is nothing to compare; ``sensitivity``, how far each of ``PROBES``
        moves logits of the reference (relative L2, the least of the elements), where it says that; ``rounding_l2``, how
        far rounding in the precision moves them, None where it says nothing of it. What ``scored`` finds is None.

    Raises:
        ValueError: An output is missing or of another shape.
    """
    tokens, expected = outputs.get("tokens"), reference["tokens"]
    if tokens is None or tokens.shape != expected.shape:
        shape = None if tokens is None else tokens.shape
        raise ValueError(f"the runtime generated tokens of shape {shape}, the reference {expected.shape}")
    ids, given, checked = outputs["ids"], outputs["logits"], reference["logits"]
    if ids.shape != given.shape or given.shape[:-1] != checked.shape[:-1] or not ids.shape[-1]:
        raise ValueError(f"the runtime gave logits of shape {given.shape}, the reference {checked.shape}")
    vocabulary = checked.shape[-1]
    for array, whose in ((tokens, "token"), (ids, "id of a logit")):
        if array.dtype.kind not in "iu" or array.min() < 0 or array.max() >= vocabulary:
            raise ValueError(f"the runtime gave a {whose} that is none of the {vocabulary} of the vocabulary")
    if (np.diff(np.sort(ids, -1), axis=-1) == 0).any():
        raise ValueError("the runtime gave two logits of one token")
    empty = {
        **dict.fromkeys(("max_abs", "max_rel", "relative_l2", "cosine", "row_l2", "spread_l2")),
        "rows": given[..., 0].size,
    }
    if problem := _not_finite(given, reference):
        return {"finite": False, **empty, "top1_agreement": None, "problem": problem}
    same = tokens == expected
    first = np.where(same.all(-1), tokens.shape[-1], same.argmin(-1))
    rows, steps = given.shape[1:3]
    logged = outputs.get("logged", tokens[:, :rows, :steps]) == expected[:, :rows, :steps]
    distance, error = _logits(ids, given, checked, np.where(logged.all(-1), steps, logged.argmin(-1)))
    differing = int((first < tokens.shape[-1]).sum())
    return {
        "finite": True,
        **distance,
        "logit_error": error,
        "token_agreement": float(same.mean()),
        "rows_equal": 1 - differing / first.size,
        "first_difference": int(first.min()) if differing else None,
        "generated": tokens.shape[-1],
        **dict.fromkeys(("top1_agreement", "texts", "largest_margin")),
        "spread_l2": None,
        "problem": None,
        "sensitivity": _sensitivity(reference),
        "rounding_l2": _rounding(reference, precision),
    }


def other_texts(tokens: Sequence[np.ndarray], expected: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """What the reference has to read: each text that is not its own, once.

    Args:
        tokens: (elements, batch, generated) of each time that the requests were made.
        expected: The reference's.

    Returns:
        The texts (texts, generated), and to which element and row each belongs (texts, 2).
    """
    found: dict[tuple[int, ...], None] = {}
    for given in tokens:
        for place in zip(*np.nonzero((given != expected).any(-1)), strict=True):
            found[(*map(int, place), *map(int, given[place]))] = None
    every = np.array(list(found), np.int64).reshape(len(found), 2 + expected.shape[-1])
    return every[:, 2:], every[:, :2]


def reading(gaps: np.ndarray) -> dict[str, Any]:
    """Sums up how the reference scored the texts that differ from its text.

    Args:
        gaps: (texts, generated), as ``ceilings.models.token_reference.gaps`` gives them; of no text where all are the
            reference's.

    Returns:
        ``texts``, the number of those that were read; ``chosen``, the share of their tokens that the reference would
        choose at their place; ``largest_gap``, by how many logits it prefers another one at most, None where nothing
        was read or a logit of the reference is no number.
    """
    gaps = np.asarray(gaps, np.float64)
    known = gaps.size > 0 and bool(np.isfinite(gaps).all())
    return {
        "texts": len(gaps),
        "chosen": float((gaps <= 0).mean()) if gaps.size else 1.0,
        "largest_gap": float(gaps.max()) if known else None,
    }


def scored(parity: Mapping[str, Any], read: Mapping[str, Any]) -> dict[str, Any]:
    """A parity with the reference's scores of the texts that differ from its text.

    Args:
        parity: As ``compare`` gives it.
        read: As ``reading`` gives it.

    Returns:
        The same with ``texts`` and, as ``top1_agreement``, ``chosen`` of the reading; ``largest_margin``, by how many
        rms errors the reference prefers another token at most. Rounding explains up to ``EXPLAINED``.
    """
    gap = read["largest_gap"]
    if read["texts"] and gap is None:
        return {**parity, "problem": "a logit of the FP32 reference that reads the text is a NaN or an infinity"}
    return {
        **parity,
        "texts": read["texts"],
        "top1_agreement": read["chosen"],
        "largest_margin": None if gap is None else gap / parity["logit_error"],
    }


def _sensitivity(reference: Arrays) -> dict[str, float] | None:
    probes = reference.get("probes")
    if probes is None or not probes.size:
        return None
    return {name: float(moved) for name, moved in zip(PROBES, probes.min(0), strict=True)}


def _rounding(reference: Arrays, precision: str) -> float | None:
    like = "fp16" if precision == "tf32" else precision  # the mantissas are equally long
    if "rounding" not in reference or like not in ROUNDED:
        return None
    return float(reference["rounding"][ROUNDED.index(like)])


def too_far(parity: Mapping[str, Any], tolerance: float) -> str | None:
    """Why a runtime gets no speed number; None where its tokens are what its precision gives.

    Args:
        parity: As ``scored`` gives it.
        tolerance: Largest relative L2 difference of logits.
    """
    if reason := logits_too_far(parity, tolerance):
        return reason
    texts, margin = parity.get("texts"), parity["largest_margin"]
    if texts is None or (parity["rows_equal"] < 1 and not (texts and margin is not None)):
        return "the FP32 reference has not read the text, so nothing says whether its tokens are right; measure it anew"
    if margin is not None and not margin <= EXPLAINED:
        return (
            f"the FP32 reference, given the same text, prefers another token by up to {margin:.3g} rms errors of this "
            f"runtime's logits; rounding explains {EXPLAINED:g}"
        )
    return None


def logits_too_far(parity: Mapping[str, Any], tolerance: float) -> str | None:
    """Why no text of a runtime has to be read: its first logits are wrong already, or too few are compared.

    Args:
        parity: As ``compare`` gives it.
        tolerance: Largest relative L2 difference of logits.
    """
    if parity["problem"]:
        return str(parity["problem"])
    distance, limit = parity["relative_l2"], expected(parity, tolerance)
    why = "" if limit == tolerance else f", {EXPECTED:g} times what rounding in this precision gives"
    if distance is None or not distance <= limit:
        return f"relative L2 difference of logits from the FP32 reference is {distance}; allowed {limit:.3g}{why}"
    if parity["row_l2"] > ROWS_BEYOND * limit:
        return (
            f"the logits of one token differ from the FP32 reference by {parity['row_l2']:.3g} of their norm; allowed "
            f"{ROWS_BEYOND * limit:.3g}"
        )
    first, later = parity.get("prefill_l2"), parity.get("decode_l2")
    if first is not None and first > limit:  # right decode steps of the same request would hide it
        return (
            f"relative L2 difference of the logits of the prefill from the FP32 reference is {first:.3g}; allowed "
            f"{limit:.3g}{why}"
        )
    if later is not None and later > allowed(parity, tolerance):
        return (
            f"relative L2 difference of the logits of decode steps from the FP32 reference is {later:.3g}, of those of "
            f"the prefill {first or 0:.3g}: what the cache holds or where it is read is wrong; allowed {GROWTH:g} times"
        )
    if parity.get("decode_l2") is None and (parity.get("generated") or 1) > 1:
        return (
            "no decode step is compared, since rounding gives every row another first token than the FP32 reference's; "
            "another seed of the study gives other prompts"
        )
    return None


def allowed(parity: Mapping[str, Any], tolerance: float) -> float:
    """Relative L2 up to which logits of decode steps are those of a right cache, as far as this comparison can tell."""
    most = max(GROWTH * (parity.get("prefill_l2") or 0), NEGLIGIBLE * tolerance)
    return min(expected(parity, tolerance), most)


def expected(parity: Mapping[str, Any], tolerance: float) -> float:
    """Relative L2 up to which logits are as far off as rounding makes those of this model, at most the tolerance."""
    rounding = parity.get("rounding_l2")
    return tolerance if rounding is None else min(tolerance, EXPECTED * rounding)


def unseen(parity: Mapping[str, Any], tolerance: float) -> list[str]:
    """A flag that names the faults of a cache which this comparison would not see in the logits.

    Args:
        parity: As ``compare`` gives it.
        tolerance: Largest relative L2 difference of logits.
    """
    limit = allowed(parity, tolerance)
    hidden = [f"{name} ({moved:.2g})" for name, moved in (parity.get("sensitivity") or {}).items() if moved <= limit]
    if not hidden:
        return []
    return [
        f"parity passes logits of decode steps that are within {limit:.2g} of FP32's (relative L2); by so little move "
        f"this model's logits with {' and '.join(hidden)}, so such a fault of the cache would pass too"
    ]


def rounds_more(parity: Mapping[str, Any]) -> list[str]:
    """A flag where decode steps pass, and are farther off than the prefill's rounding makes them.

    Args:
        parity: As ``compare`` gives it.
    """
    first, later = parity["prefill_l2"], parity["decode_l2"]
    if not first or later is None or later <= max(ALIKE * first, SINGLE):
        return []
    return [
        f"logits of decode steps are {later / first:.2g} times as far off as those of the prefill, so the cache may "
        "hold keys and values in less than the cell's precision"
    ]


def says_little(tokens: np.ndarray) -> list[str]:
    """A flag where equal tokens confirm little: the reference gives the same ones for every prompt, or repeats one.

    Args:
        tokens: The reference's, (elements, batch, generated).
    """
    rows = tokens.reshape(-1, tokens.shape[-1])
    if len(rows) > 1 and (rows == rows[:1]).all():
        return ["the reference gives the same tokens for different prompts, so parity confirms little"]
    repeating = int((rows == rows[:, :1]).all(1).sum())
    if rows.shape[1] >= FEWEST and 2 * repeating > len(rows):
        return [f"the reference repeats one token in {repeating} of {len(rows)} rows, so equal tokens confirm little"]
    return []


def is_coarse(parity: Mapping[str, Any], precision: str) -> list[str]:
    """A flag where logits of a runtime in FP32 are as far off as products in less than FP32 make them.

    Args:
        parity: As ``compare`` gives it.
        precision: Of the cell.
    """
    distance = parity["relative_l2"]
    if precision != "fp32" or distance is None or distance <= SINGLE:
        return []
    return [f"logits in FP32 are off by {distance:.2g} (relative L2), so some products are in less, as FP16 or TF32"]


def _not_finite(given: np.ndarray, reference: Arrays) -> str | None:
    if not np.isfinite(reference["logits"]).all():
        return "the FP32 reference of the logits has a NaN or an infinity"
    return None if np.isfinite(given).all() else "a logit has a NaN or an infinity"


def _logits(ids: np.ndarray, given: np.ndarray, checked: np.ndarray, first: np.ndarray) -> tuple[dict[str, Any], float]:
    """Distance of the logits of rows that were the reference's up to there; rms error of a difference of two."""
    steps = np.arange(given.shape[2])
    here = steps <= first[..., None]
    decoded = np.broadcast_to(steps > 0, here.shape)[here]
    mean = checked.mean(-1, keepdims=True, dtype=np.float64)
    wanted = (np.take_along_axis(checked, ids, -1) - mean)[here]
    found = (given - mean)[here]
    errors, norms = found - wanted, np.linalg.norm(wanted, axis=-1)
    average = max(float(np.sqrt(np.mean(np.square(norms)))), np.finfo(np.float64).tiny)
    largest = float(np.abs(wanted).max())
    alike = errors - errors.mean(-1, keepdims=True)  # what all logits of a token are off by moves none before another
    spread = float(np.square(alike).sum() / max(1, errors.size - len(errors)))
    least = ROUNDING * float(np.sqrt(np.mean(np.square(checked, dtype=np.float64))))
    cosines = np.sum(found * wanted, -1) / np.maximum(np.linalg.norm(found, axis=-1) * norms, np.finfo(np.float64).tiny)
    distance = {
        "max_abs": float(np.abs(errors).max()),
        "max_rel": float(np.abs(errors).max()) / largest if largest else None,
        "relative_l2": _relative(errors, wanted),
        "cosine": float(np.clip(cosines, -1, 1).min()),
        "row_l2": float((np.linalg.norm(errors, axis=-1) / np.maximum(norms, average)).max()),
        "prefill_l2": _relative(errors[~decoded], wanted[~decoded]),
        "decode_l2": _relative(errors[decoded], wanted[decoded]),
        "rows": len(wanted),
    }
    return distance, max(float(np.sqrt(2 * max(spread, least**2))), np.finfo(np.float64).tiny)


def _relative(errors: np.ndarray, wanted: np.ndarray) -> float | None:
    """Relative L2; None where there is nothing, or nothing but zeros."""
    return float(np.linalg.norm(errors) / norm) if (norm := np.linalg.norm(wanted)) else None

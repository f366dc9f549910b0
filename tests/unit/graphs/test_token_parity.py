"""Rounding changes tokens and is no fault; a fault of the cache is none of rounding."""

from __future__ import annotations

from typing import Any

import generated_tokens as generated
import numpy as np
import pytest
import torch
from generated_tokens import compared

from ceilings.errors import CellFailure
from ceilings.graphs import parity as parities
from ceilings.graphs import token_parity
from ceilings.graphs.token_parity import compare, logits_too_far, reading, says_little, scored, too_far
from ceilings.measure import worker
from ceilings.workload.generation import CHECKED_STEPS, PROBES, TOP
from ceilings.workload.task import TASKS
from ceilings.workload.workload import Workload

TOLERANCES = {torch.float32: 0.001, torch.float16: 0.02, torch.bfloat16: 0.1}
COUNT = 24
LOGITS = ("ids", "logits")
Arrays = dict[str, np.ndarray]


@pytest.mark.parametrize("dtype", TOLERANCES, ids=str)
@pytest.mark.parametrize("architecture", generated.SIZES)
def test_rounding_always_passes(architecture: str, dtype: torch.dtype) -> None:
    agreements = []
    for seed in range(6):
        batch = 1 if seed % 2 else 6
        expected = generated.reference(architecture, seed, batch, COUNT)
        given = generated.outputs(generated.model(architecture, seed, dtype), seed, batch, COUNT)
        parity = compared(given, expected, architecture, seed)
        assert too_far(parity, TOLERANCES[dtype]) is None, seed
        assert parity["largest_margin"] is None or parity["largest_margin"] < token_parity.EXPLAINED / 1.5
        agreements.append(parity["token_agreement"])
    assert (min(agreements) < 1) is (dtype == torch.bfloat16) or dtype == torch.float16


@pytest.mark.parametrize("at", [1, CHECKED_STEPS + 4])  # the first decode step, and one whose logits nobody compares
@pytest.mark.parametrize("fault", generated.FAULTS)
@pytest.mark.parametrize("architecture", generated.SIZES)
def test_a_fault_of_the_cache_is_refused(architecture: str, fault: str, at: int) -> None:
    for seed in range(2):
        expected = generated.reference(architecture, seed, 4, COUNT)
        planted = generated.FAULTS[fault](at)
        for dtype in (torch.float32, torch.float16):
            decoder = generated.model(architecture, seed, dtype)
            parity = compared(generated.outputs(decoder, seed, 4, COUNT, planted), expected, architecture, seed)
            assert too_far(parity, TOLERANCES[dtype]), (seed, dtype, parity)


@pytest.mark.parametrize("fault", generated.FAULTS)
def test_a_fault_that_begins_where_rows_are_other_texts_already_is_refused(fault: str) -> None:
    """After step 40, of rows that rounding in BF16 made other texts before."""
    count, batch, architecture = 64, 6, "llama"
    expected, ids = generated.reference(architecture, 0, batch, count), generated.prompts(0, batch)
    decoder = generated.model(architecture, 0, torch.bfloat16)
    right = generated.outputs(decoder, 0, batch, count)
    other = (right["tokens"][..., :40] != expected["tokens"][..., :40]).any(-1)
    assert other.any()
    given = generated.outputs(decoder, 0, batch, count, generated.FAULTS[fault](40), given=ids)
    wrong = {"tokens": np.where(other[..., None], given["tokens"], right["tokens"]), **{k: right[k] for k in LOGITS}}
    assert not np.array_equal(wrong["tokens"], right["tokens"])
    assert too_far(compared(right, expected, architecture, 0), 0.1) is None
    assert "given the same text" in str(too_far(compared(wrong, expected, architecture, 0), 0.1))


@pytest.mark.parametrize("architecture", generated.SIZES)
def test_a_fault_within_the_tolerance_shows_beside_the_prefill(architecture: str) -> None:
    """BF16's tolerance is wide enough for a slot that was never written; the prefill, which reads none, is nearer."""
    refused = []
    for seed in range(3):
        expected = generated.reference(architecture, seed, 4, COUNT)
        decoder = generated.model(architecture, seed, torch.bfloat16)
        given = generated.outputs(decoder, seed, 4, COUNT, generated.stale_slot(1))
        refused.append(str(too_far(compared(given, expected, architecture, seed), 0.1)))
    assert all(reason != "None" for reason in refused)
    assert architecture != "gpt2" or any("of the prefill" in reason for reason in refused)


@pytest.mark.parametrize("architecture", generated.SIZES)
def test_the_check_says_which_faults_it_would_not_see(architecture: str) -> None:
    """A fault that moves logits by more than what passes is refused, and one that moves them by less is named."""
    seen = {True: 0, False: 0}
    for prompt in (24, 100):
        ids = [torch.randint(0, generated.VOCABULARY, (2, prompt), generator=torch.Generator().manual_seed(3))] * 2
        expected = generated.reference(architecture, 0, 2, 6, given=ids)
        for dtype in (torch.float16, torch.bfloat16):
            decoder = generated.model(architecture, 0, dtype)
            for slot in range(0, prompt, 9):
                moved = generated.generate(generated.model(architecture, 0), ids[0], 2, generated.cleared(slot))[1][
                    :, 1
                ]
                right = expected["logits"][0, :, 1]
                top = np.argsort(-right, -1, kind="stable")[:, :TOP]
                near = [np.take_along_axis(one - one.mean(-1, keepdims=True), top, -1) for one in (moved, right)]
                by = float(np.linalg.norm(near[0] - near[1]) / np.linalg.norm(near[1]))
                expected["probes"] = np.full((2, len(PROBES)), by, np.float32)
                clean = compare(generated.outputs(decoder, 0, 2, 6, given=ids), expected)
                flags = token_parity.unseen(clean, TOLERANCES[dtype])
                assert clean["sensitivity"] == dict.fromkeys(PROBES, pytest.approx(by))
                limit = token_parity.allowed(clean, TOLERANCES[dtype])
                assert bool(flags) is (by <= limit) and logits_too_far(clean, TOLERANCES[dtype]) is None
                if by > 4 * limit:  # three steps and the rounding share what one step shows
                    faulty = compare(generated.outputs(decoder, 0, 2, 6, generated.cleared(slot), given=ids), expected)
                    assert logits_too_far(faulty, TOLERANCES[dtype])
                seen[bool(flags)] += 1
    assert seen[True] and seen[False]  # of both kinds, or this shows nothing


def test_logits_that_are_farther_off_than_rounding_explains_are_refused() -> None:
    """Within BF16's tolerance, as of a layer that is scaled wrongly: 12 times what BF16 rounds in this model."""
    outputs, reference = exact(4)
    reference["rounding"] = np.array([6e-4, 5e-3], np.float32)
    known = np.take_along_axis(reference["logits"], outputs["ids"], -1) - reference["logits"].mean(-1, keepdims=True)
    signs = np.where(np.arange(TOP) % 2, 1, -1)
    for off, fp16, bf16 in ((5e-4, True, True), (1e-2, False, True), (6e-2, False, False)):
        given = outputs | {"logits": outputs["logits"] + off * known * signs}
        for precision, tolerance, right in (("fp16", 0.02, fp16), ("tf32", 0.02, fp16), ("bf16", 0.1, bf16)):
            reason = logits_too_far(compare(given, reference, precision), tolerance)
            assert (reason is None) is right, (off, precision, reason)
            assert right or off > tolerance or "what rounding in this precision gives" in str(reason)
        assert logits_too_far(compare(given, reference), 0.1) is None  # the tolerance alone
    assert compare(outputs, reference, "fp32")["rounding_l2"] is None
    assert token_parity.expected({"rounding_l2": 1.0}, 0.1) == 0.1


def test_one_empty_slot_of_many_is_seen_in_half_precision() -> None:
    """It moves the logits by less than a fifth of the tolerance, and by more than the prefill's rounding explains."""
    outputs, reference = exact(4)
    rng = np.random.default_rng(0)
    size = np.sqrt(np.mean(np.square(np.take_along_axis(reference["logits"], outputs["ids"], -1))))
    noise = np.full(outputs["logits"].shape, 4e-4 * size)
    noise[:, :, 1:] = 2.5e-3 * size
    outputs["logits"] = outputs["logits"] + rng.normal(0, 1, noise.shape) * noise
    assert "of the prefill" in str(too_far(compare(outputs, reference), 0.02))


def exact(batch: int = 3) -> tuple[Arrays, Arrays]:
    """A reference with an answer that equals it."""
    return generated.outputs(generated.model("gpt2", 0), 0, batch, 12), generated.reference("gpt2", 0, batch, 12)


@pytest.mark.parametrize("architecture", generated.SIZES)
def test_half_precision_under_the_name_of_fp32_is_flagged(architecture: str) -> None:
    """FP32's tolerance is wider than what FP16 rounds, so the gate alone lets it pass."""
    for seed in range(2):
        expected = generated.reference(architecture, seed, 4, COUNT)
        for dtype, coarse in ((torch.float32, False), (torch.float16, True)):
            parity = compare(generated.outputs(generated.model(architecture, seed, dtype), seed, 4, COUNT), expected)
            assert bool(token_parity.is_coarse(parity, "fp32")) is coarse, parity["relative_l2"]
            assert not token_parity.is_coarse(parity, "fp16")


def read(outputs: Arrays, reference: Arrays) -> dict[str, Any]:
    """The parity of what ``exact`` gives, after a change."""
    return compared(outputs, reference, "gpt2", 0)


def test_equal_tokens_are_equal() -> None:
    outputs, reference = exact()
    parity = read(outputs, reference)
    assert parity["relative_l2"] < 1e-6 and parity["cosine"] > 0.999999
    assert (parity["token_agreement"], parity["top1_agreement"], parity["rows_equal"]) == (1, 1, 1)
    assert parity["first_difference"] is parity["largest_margin"] is None
    assert parity["texts"] == 0 and too_far(parity, 1e-3) is None
    assert parity["rows"] == 2 * 3 * CHECKED_STEPS


def test_a_token_beside_the_right_one_is_refused() -> None:
    outputs, reference = exact()
    outputs["tokens"][1, 2, 11] = (outputs["tokens"][1, 2, 11] + 1) % 300
    parity = read(outputs, reference)
    assert (parity["first_difference"], parity["rows_equal"]) == (11, 5 / 6)
    assert (parity["token_agreement"], parity["top1_agreement"], parity["texts"]) == (1 - 1 / 72, 11 / 12, 1)
    assert "prefers another token" in str(too_far(parity, 0.1))


def near_tie() -> tuple[Arrays, Arrays, tuple[int, int, int], float]:
    """FP32's right text after its second choice at one place, and by how much the first was likelier there.

    The place is that of the smallest difference in the first half of any row but the first.
    """
    outputs, reference = exact()
    decoder, ids = generated.model("gpt2", 0), generated.prompts(0, 3)
    logits = np.stack([generated.generate(decoder, one, 12)[1] for one in ids])
    best = -np.sort(-logits, -1)
    gaps = best[:, 1:, 4:7, 0] - best[:, 1:, 4:7, 1]
    element, row, place = (int(i) for i in np.unravel_index(gaps.argmin(), gaps.shape))
    row, place = row + 1, place + 4
    second = int(np.argsort(-logits[element, row, place])[1])
    begun = torch.tensor([[*ids[element][row].tolist(), *reference["tokens"][element, row, :place].tolist(), second]])
    outputs["tokens"][element, row, place] = second
    outputs["tokens"][element, row, place + 1 :] = generated.generate(decoder, begun, 11 - place)[0][0]
    return outputs, reference, (element, row, place), float(gaps.min())


def test_another_token_at_a_near_tie_is_right_where_the_logits_are_off_by_as_much() -> None:
    outputs, reference, (_, _, place), gap = near_tie()
    assert "prefers another token" in str(too_far(read(outputs, reference), 0.1))  # FP32 knows them apart
    rng = np.random.default_rng(0)
    scale = gap / 8
    outputs["logits"] = outputs["logits"] + rng.normal(0, scale, outputs["logits"].shape) + 3 * scale
    parity = read(outputs, reference)
    # 480 errors: their rms is known within 4%; the offset that all of them share counts for the distance alone.
    assert parity["largest_margin"] == pytest.approx(8 / np.sqrt(2), rel=0.15)
    assert too_far(parity, 0.1) is None and parity["first_difference"] == place
    assert parity["top1_agreement"] == 11 / 12 and parity["token_agreement"] < 1 - 1 / 72
    centre = reference["logits"].mean(-1, keepdims=True, dtype=float)
    wanted = np.take_along_axis(reference["logits"], outputs["ids"], -1) - centre
    found = outputs["logits"] - centre
    assert parity["relative_l2"] == pytest.approx(np.linalg.norm(found - wanted) / np.linalg.norm(wanted), rel=1e-6)


@pytest.mark.parametrize("fault", ["repeats a token", "is another row's", "skips a token"])
def test_a_fault_after_an_explained_token_is_refused(fault: str) -> None:
    outputs, reference, (element, row, place), gap = near_tie()
    noise = np.random.default_rng(0).normal(0, gap / 8, outputs["logits"].shape)
    outputs["logits"] = outputs["logits"] + noise
    assert too_far(read(outputs, reference), 0.1) is None
    text = outputs["tokens"][element, row]
    if fault == "repeats a token":
        text[place + 1 :] = text[place]
    elif fault == "is another row's":
        text[place + 1 :] = reference["tokens"][element, 0, place + 1 :]
    else:
        text[place + 1 : -1] = text[place + 2 :].copy()
    assert "prefers another token" in str(too_far(read(outputs, reference), 0.1))


def test_each_text_is_read_once_and_the_reference_s_never() -> None:
    outputs, reference, (element, row, _), _ = near_tie()
    again = outputs["tokens"].copy()
    again[0, 0, 11] = (again[0, 0, 11] + 1) % 300
    texts, places = token_parity.other_texts([outputs["tokens"], outputs["tokens"], again], reference["tokens"])
    assert places.tolist() == [[element, row], [0, 0]]
    assert np.array_equal(texts, [outputs["tokens"][element, row], again[0, 0]])
    texts, places = token_parity.other_texts([reference["tokens"]], reference["tokens"])
    assert (texts.shape, places.shape) == ((0, 12), (0, 2))


def test_a_record_whose_text_nobody_read_gets_no_number() -> None:
    """As one of an earlier version, which compared no token after a row's first other one."""
    parity = compare(*exact())
    assert "has not read the text" in str(too_far(parity, 0.1))
    earlier = scored(parity, reading(np.zeros((0, 12))))
    assert too_far(earlier, 0.1) is None
    del earlier["texts"]
    assert "has not read the text" in str(too_far(earlier, 0.1))
    outputs, reference = exact()
    outputs["tokens"][1, 2, 11] = (outputs["tokens"][1, 2, 11] + 1) % 300
    other = read(outputs, reference)
    for change in ({"texts": 0}, {"largest_margin": None}, {"texts": 0, "largest_margin": None}):
        assert "has not read the text" in str(too_far(other | change, 0.1))
    assert "NaN" in str(too_far(scored(parity, reading(np.full((1, 12), np.nan))), 0.1))


def test_logits_after_another_token_are_not_compared() -> None:
    outputs, reference = exact()
    outputs["tokens"][0, 0, 1] = (outputs["tokens"][0, 0, 1] + 1) % 300
    outputs["logits"][0, 0, 2:] += 100
    parity = compare(outputs, reference)
    assert parity["relative_l2"] < 1e-6 and parity["rows"] == 2 * 3 * CHECKED_STEPS - 2


def test_a_prefill_beyond_the_tolerance_is_refused_beside_right_decode_steps() -> None:
    """As where the first pass still reads the cache of the request before, and so many errors explain its token."""
    outputs, reference = exact()
    outputs["logits"] = outputs["logits"].copy()
    known = np.take_along_axis(reference["logits"], outputs["ids"], -1) - reference["logits"].mean(-1, keepdims=True)
    outputs["logits"][:, :, 0] += 0.12 * known[:, :, 0] * np.where(np.arange(TOP) % 2, 1, -1)
    parity = compare(outputs, reference)
    assert parity["relative_l2"] < 0.1 < parity["prefill_l2"] < 0.13 and parity["decode_l2"] < 1e-6
    assert "logits of the prefill" in str(logits_too_far(parity, 0.1))
    assert logits_too_far(parity, 0.13) is None


def test_a_request_whose_decode_steps_nobody_compared_is_refused() -> None:
    outputs, reference = exact()
    outputs["tokens"][:, :, 0] = (outputs["tokens"][:, :, 0] + 1) % 300
    outputs["tokens"][:, :, 1:], outputs["logits"][:, :, 1:] = 7, 99
    parity = compare(outputs, reference)
    assert parity["decode_l2"] is None
    assert "no decode step is compared" in str(logits_too_far(parity, 1e-3))
    outputs["tokens"][0, 0], outputs["logits"][0, 0] = reference["tokens"][0, 0], exact()[0]["logits"][0, 0]
    assert logits_too_far(compare(outputs, reference), 1e-3) is None  # one row that is followed shows them


def test_rows_that_are_swapped_are_refused() -> None:
    outputs, reference = exact()
    outputs["tokens"] = np.roll(outputs["tokens"], 1, 1)
    outputs["logged"] = reference["tokens"][:, :, :CHECKED_STEPS]  # its logits are right
    assert "rms errors" in str(too_far(read(outputs, reference), 1e-3))


@pytest.mark.parametrize("architecture", generated.SIZES)
def test_a_cache_in_less_than_the_cell_s_precision_is_flagged(architecture: str) -> None:
    """FP8's rounding is within what passes in BF16, and shows beside the prefill, which reads no cache."""

    def rounded(step: int, cache: Any, newest: torch.Tensor) -> dict[str, Any]:
        for layer in cache.layers if step else ():
            held = (layer.keys, layer.values)
            layer.keys, layer.values = (part.to(torch.float8_e4m3fn).to(part.dtype) for part in held)
        return {}

    for seed in range(2):
        expected = generated.reference(architecture, seed, 4, COUNT)
        decoder = generated.model(architecture, seed, torch.bfloat16)
        for fault in (None, rounded):
            parity = compare(generated.outputs(decoder, seed, 4, COUNT, fault), expected)
            assert bool(token_parity.rounds_more(parity)) is bool(fault), (parity["prefill_l2"], parity["decode_l2"])


def test_logits_of_another_request_are_judged_by_its_tokens_and_the_timed_tokens_too() -> None:
    outputs, reference = exact()
    right = outputs["tokens"][:, :, :CHECKED_STEPS].copy()
    assert compare(outputs | {"logged": right}, reference) == compare(outputs, reference)
    wrong = outputs | {"tokens": np.full_like(outputs["tokens"], 7), "logged": right}
    parity = read(wrong, reference)
    assert parity["relative_l2"] < 1e-6 and "rms errors" in str(too_far(parity, 1e-3))
    other = right.copy()
    other[0, 0, 1] = (other[0, 0, 1] + 1) % 300  # from here on its logits are another text's
    outputs["logits"] = outputs["logits"].copy()
    outputs["logits"][0, 0, 2:] += 100
    parity = compare(outputs | {"logged": other}, reference)
    assert parity["relative_l2"] < 1e-6 and parity["token_agreement"] == 1


def test_every_judge_of_a_record_knows_the_rules_of_tokens() -> None:
    outputs, reference = exact()
    outputs["tokens"][1, 2, 10] = (outputs["tokens"][1, 2, 10] + 1) % 300
    parity = read(outputs, reference)
    assert parity["relative_l2"] < 1e-6 and "rms errors" in str(parities.too_far(parity, 0.1))
    assert parities.too_far(read(*exact()), 0.1) is None


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda o: o.update(tokens=o["tokens"][..., :-1]), "generated tokens of shape"),
        (lambda o: o["tokens"].__setitem__((0, 0, 0), 300), "none of the 300"),
        (lambda o: o["tokens"].__setitem__((0, 0, 0), -1), "none of the 300"),
        (lambda o: o.update(tokens=o["tokens"].astype(float)), "none of the 300"),
        (lambda o: o["ids"].__setitem__((0, 0, 0, 0), o["ids"][0, 0, 0, 1]), "two logits of one token"),
        (lambda o: o.update(logits=o["logits"][:, :, :-1], ids=o["ids"][:, :, :-1]), "gave logits of shape"),
        (lambda o: o["logits"].__setitem__((0, 0, 0, 0), np.nan), "a logit has a NaN"),
        (lambda o: o["logits"].__setitem__((0, 0, 0), o["logits"][0, 0, 0] * 0.55), "the logits of one token"),
    ],
)
def test_what_is_no_answer_gets_no_speed_number(change: Any, message: str) -> None:
    outputs, reference = exact()
    change(outputs)
    workload = Workload(TASKS["text-generation"], (), ())
    with pytest.raises(CellFailure, match=message) as failure:
        worker.gate(workload, [], outputs, reference, 0.1)
    assert failure.value.kind == "parity"


def test_the_record_of_a_run_holds_it() -> None:
    from ceilings.schemas.common import FULL_PARITY, POSITIVE, TOKEN_PARITY
    from ceilings.schemas.terms import record

    outputs, reference = exact()
    parity = worker.gate(Workload(TASKS["text-generation"], (), ()), [], outputs, reference, 0.1)
    parity = scored(parity, reading(np.ones((1, 12))))
    assert record({**FULL_PARITY, "tolerance": POSITIVE}, TOKEN_PARITY)(parity) is None
    assert parity["rows"] == 24 and outputs["ids"].shape[-1] == TOP


def test_a_reference_that_confirms_little_is_flagged() -> None:
    tokens = np.arange(48).reshape(2, 2, 12)
    elements = [{"input_ids": np.array([index])} for index in range(2)]
    reference = {"tokens": tokens, "probes": tokens, "logits": tokens * 1.0}
    assert worker.constant(elements, reference) == says_little(tokens) == []
    assert "same tokens for different prompts" in says_little(np.tile(np.arange(12), (2, 2, 1)))[0]
    repeated = np.repeat(np.arange(4).reshape(2, 2, 1), 12, -1)
    assert "repeats one token in 4 of 4 rows" in worker.constant(elements, {**reference, "tokens": repeated})[0]

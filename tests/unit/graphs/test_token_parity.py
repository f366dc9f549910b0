"""Rounding changes tokens and is no fault; a fault of the cache is none of rounding."""

from __future__ import annotations

import types
from typing import Any

import generated_tokens as generated
import numpy as np
import pytest
import torch

from ceilings.errors import CellFailure
from ceilings.graphs import parity as parities
from ceilings.graphs import token_parity
from ceilings.graphs.token_parity import compare, says_little, too_far
from ceilings.measure import gate, worker
from ceilings.workload.generation import CHECKED_STEPS, PROBES, TOP
from ceilings.workload.task import TASKS
from ceilings.workload.workload import Workload

TOLERANCES = {torch.float32: 0.001, torch.float16: 0.02, torch.bfloat16: 0.1}
COUNT = 24
Arrays = dict[str, np.ndarray]


@pytest.mark.parametrize("dtype", TOLERANCES, ids=str)
@pytest.mark.parametrize("architecture", generated.SIZES)
def test_rounding_always_passes(architecture: str, dtype: torch.dtype) -> None:
    agreements = []
    for seed in range(6):
        batch = 1 if seed % 2 else 6
        expected = generated.reference(architecture, seed, batch, COUNT)
        parity = compare(generated.outputs(generated.model(architecture, seed, dtype), seed, batch, COUNT), expected)
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
            parity = compare(generated.outputs(decoder, seed, 4, COUNT, planted), expected)
            assert too_far(parity, TOLERANCES[dtype]), (seed, dtype, parity)


@pytest.mark.parametrize("architecture", generated.SIZES)
def test_a_fault_within_the_tolerance_shows_beside_the_prefill(architecture: str) -> None:
    """BF16's tolerance is wide enough for a slot that was never written; the prefill, which reads none, is nearer."""
    refused = []
    for seed in range(3):
        expected = generated.reference(architecture, seed, 4, COUNT)
        decoder = generated.model(architecture, seed, torch.bfloat16)
        parity = compare(generated.outputs(decoder, seed, 4, COUNT, generated.stale_slot(1)), expected)
        refused.append(str(too_far(parity, 0.1)))
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
                assert bool(flags) is (by <= limit) and too_far(clean, TOLERANCES[dtype]) is None
                if by > 4 * limit:  # three steps and the rounding share what one step shows
                    faulty = compare(generated.outputs(decoder, 0, 2, 6, generated.cleared(slot), given=ids), expected)
                    assert too_far(faulty, TOLERANCES[dtype])
                seen[bool(flags)] += 1
    assert seen[True] and seen[False]  # of both kinds, or this shows nothing


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


def test_equal_tokens_are_equal() -> None:
    outputs, reference = exact()
    parity = compare(outputs, reference)
    assert parity["relative_l2"] < 1e-6 and parity["cosine"] > 0.999999
    assert (parity["token_agreement"], parity["top1_agreement"], parity["rows_equal"]) == (1, 1, 1)
    assert parity["first_difference"] is parity["largest_margin"] is None
    assert parity["explained"] and too_far(parity, 1e-3) is None
    assert parity["rows"] == 2 * 3 * CHECKED_STEPS


def test_a_token_beside_the_right_one_is_refused() -> None:
    outputs, reference = exact()
    outputs["tokens"][1, 2, 10] = (outputs["tokens"][1, 2, 10] + 1) % 300
    parity = compare(outputs, reference)
    assert (parity["first_difference"], parity["rows_equal"], parity["explained"]) == (10, 5 / 6, False)
    assert parity["token_agreement"] == 1 - 1 / 72
    assert parity["top1_agreement"] == (5 * 12 + 10) / (5 * 12 + 11)
    assert "first at position 10" in str(too_far(parity, 0.1))


def test_what_follows_the_first_difference_is_not_compared() -> None:
    outputs, reference = exact()
    near = reference["candidate_logits"]
    near[0, 0, 5, 1] = near[0, 0, 5, 0] - 1e-9  # two tokens as likely
    outputs["tokens"][0, 0, 5] = reference["candidates"][0, 0, 5, 1]
    outputs["tokens"][0, 0, 6:] = 7
    parity = compare(outputs, reference)
    assert parity["first_difference"] == 5 and parity["explained"] and too_far(parity, 1e-3) is None


def test_the_margin_is_in_rms_errors_of_a_difference_of_two_logits() -> None:
    outputs, reference = exact(4)
    rng = np.random.default_rng(0)
    scale = 0.01 * reference["logits"].std()
    outputs["logits"] = outputs["logits"] + rng.normal(0, scale, outputs["logits"].shape) + 3 * scale
    outputs["tokens"][0, 1, 9] = reference["candidates"][0, 1, 9, 3]
    parity = compare(outputs, reference)
    margin = reference["candidate_logits"][0, 1, 9, 0] - reference["candidate_logits"][0, 1, 9, 3]
    # 640 errors: their rms is known within 3%; the offset that all of them share counts for the distance alone.
    assert parity["largest_margin"] == pytest.approx(margin / (np.sqrt(2) * scale), rel=0.1)
    centre = reference["logits"].mean(-1, keepdims=True, dtype=float)
    wanted = np.take_along_axis(reference["logits"], outputs["ids"], -1) - centre
    found = outputs["logits"] - centre
    assert parity["relative_l2"] == pytest.approx(np.linalg.norm(found - wanted) / np.linalg.norm(wanted), rel=1e-6)


def test_a_token_that_is_no_candidate_is_at_least_as_unlikely_as_the_last() -> None:
    outputs, reference = exact()
    others = set(range(300)) - set(reference["candidates"][0, 0, 9].tolist())
    outputs["tokens"][0, 0, 9] = min(others)
    assert not compare(outputs, reference)["explained"]


def test_logits_after_another_token_are_not_compared() -> None:
    outputs, reference = exact()
    outputs["tokens"][0, 0, 1] = reference["candidates"][0, 0, 1, 1]
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
    assert "logits of the prefill" in str(too_far(parity, 0.1))
    assert too_far(parity, 0.13) is None


def test_a_request_whose_decode_steps_nobody_compared_is_refused() -> None:
    outputs, reference = exact()
    reference["candidate_logits"][:, :, 0, 1] = reference["candidate_logits"][:, :, 0, 0] - 1e-9  # all as likely
    outputs["tokens"][:, :, 0] = reference["candidates"][:, :, 0, 1]
    outputs["tokens"][:, :, 1:], outputs["logits"][:, :, 1:] = 7, 99
    parity = compare(outputs, reference)
    assert (parity["followed"], parity["decode_l2"], parity["explained"]) == (1, None, True)
    assert "no decode step is compared" in str(too_far(parity, 1e-3))
    outputs["tokens"][0, 0], outputs["logits"][0, 0] = reference["tokens"][0, 0], exact()[0]["logits"][0, 0]
    assert too_far(compare(outputs, reference), 1e-3) is None  # one row that is followed shows them


def test_a_first_token_of_another_row_is_refused_as_such() -> None:
    outputs, reference = exact()
    outputs["tokens"] = np.roll(outputs["tokens"], 1, 1)
    assert "rms errors" in str(too_far(compare(outputs, reference), 1e-3))


def test_tokens_that_no_row_is_compared_at_are_flagged() -> None:
    outputs, reference = exact()
    runner = types.SimpleNamespace(workload=Workload(TASKS["text-generation"], (), ()), precision="fp16")
    near = reference["candidate_logits"]
    for place in np.ndindex(2, 3):
        at = (*place, 5 + sum(place))
        near[(*at, 1)] = near[(*at, 0)] - 1e-9
        outputs["tokens"][at] = reference["candidates"][(*at, 1)]
        outputs["tokens"][(*place, slice(at[-1] + 1, None))] = 7
    parity = compare(outputs, reference) | {"tolerance": 0.02}
    assert too_far(parity, 0.02) is None and parity["followed"] == 9
    assert any("after 9 of 12 tokens every row is another text" in flag for flag in gate.coarse(runner, parity))
    right = compare(*exact()) | {"tolerance": 0.02}
    assert right["followed"] == 12 and not gate.coarse(runner, right)


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
    parity = compare(wrong, reference)
    assert parity["relative_l2"] < 1e-6 and "rms errors" in str(too_far(parity, 1e-3))
    other = right.copy()
    other[0, 0, 1] = reference["candidates"][0, 0, 1, 1]  # from here on its logits are another text's
    outputs["logits"] = outputs["logits"].copy()
    outputs["logits"][0, 0, 2:] += 100
    parity = compare(outputs | {"logged": other}, reference)
    assert parity["relative_l2"] < 1e-6 and parity["token_agreement"] == 1


def test_every_judge_of_a_record_knows_the_rules_of_tokens() -> None:
    outputs, reference = exact()
    outputs["tokens"][1, 2, 10] = (outputs["tokens"][1, 2, 10] + 1) % 300
    parity = compare(outputs, reference)
    assert parity["relative_l2"] < 1e-6 and "rms errors" in str(parities.too_far(parity, 0.1))
    assert parities.too_far(compare(*exact()), 0.1) is None


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
    assert record({**FULL_PARITY, "tolerance": POSITIVE}, TOKEN_PARITY)(parity) is None
    assert parity["rows"] == 24 and outputs["ids"].shape[-1] == TOP


def test_a_reference_that_confirms_little_is_flagged() -> None:
    tokens = np.arange(48).reshape(2, 2, 12)
    elements = [{"input_ids": np.array([index])} for index in range(2)]
    reference = {"tokens": tokens, "candidates": tokens, "logits": tokens * 1.0}
    assert worker.constant(elements, reference) == says_little(tokens) == []
    assert "same tokens for different prompts" in says_little(np.tile(np.arange(12), (2, 2, 1)))[0]
    repeated = np.repeat(np.arange(4).reshape(2, 2, 1), 12, -1)
    assert "repeats one token in 4 of 4 rows" in worker.constant(elements, {**reference, "tokens": repeated})[0]

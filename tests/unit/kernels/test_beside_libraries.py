"""Our steps beside the libraries': every answer against FP64 in Triton's interpreter; order and records with a double.

The double stands for CUDA's graphs and events: ``captured`` gives the chain back, ``block`` says what a replay takes.
"""

import json
import sys

import pytest

pytest.importorskip("triton", reason="triton is not installed: make kernels")

import torch
from torch.nn.attention import SDPBackend
from unit.kernels import tuner

from ceilings.kernels import tiles

fused_tiles, _, beside = map(tuner.module, ("fused_tiles", "kernel_chain", "beside_libraries"))
INTERPRETED = pytest.mark.usefixtures("interpreted")


class Card:
    """A card on which a replay takes what it is captured from, and which notes each block."""

    alive = True

    def __init__(self):
        self.seen = []

    def captured(self, chain):
        return chain()

    def block(self, graph, replays):
        self.seen.append((graph, replays))
        return graph * (1 + 0.01 * len(self.seen))

    def usable(self):
        return self.alive


def contender(name, chain, answer=1.0):
    return beside.Contender(name, lambda: torch.full((2, 3), answer), chain)


@pytest.fixture(scope="module")
def batch():
    """Two texts of 8 tokens, two layers."""
    weights = fused_tiles.weights_of(2, "fp16", "cpu", **beside.SMALL)
    with torch.inference_mode():
        yield beside.Batch(weights, 2, 8, tiles.defaults(16, "fp16"), least=2, cache=0, dry=True)


@pytest.fixture(autouse=True)
def short(monkeypatch):
    monkeypatch.setattr(beside, "WARM_SECONDS", 0.0)


@INTERPRETED
def test_a_dry_run_judges_everyone_and_times_none(tmp_path, monkeypatch, capsys):
    output = tmp_path / "beside.json"
    options = ["--dry", "--batch", "1", "2", "--sequence", "8", "--output", str(output)]
    monkeypatch.setattr(sys, "argv", ["beside_libraries.py", *options])
    beside.main()
    content, printed = json.loads(output.read_text()), capsys.readouterr().out
    assert [one["batch"] for one in content["batches"]] == [1, 2] and content["versions"]["torch"] == torch.__version__
    for one in content["batches"]:
        steps = {step["step"]: step["contenders"] for step in one["steps"]}
        assert len(one["steps"]) == beside.COMPARISONS
        assert [*steps] == ["attention, mask", "attention", "qkv", "out", "up", "down", "layer, mask", "layer"]
        for title, contenders in steps.items():
            ran = [who for who in contenders if who["refused"] is None]
            assert contenders[0]["name"].startswith("ours") and contenders[0] in ran and len(ran) >= 2, title
            assert all(0 < who["off"] < 1e-3 and who["us"] == [] for who in ran)
            for who in contenders:
                assert f"| {one['batch']} | {title} | {who['name']} |" in printed
        cudnn = next(who for who in steps["attention"] if who["name"] == "cuDNN")
        assert "No viable backend" in cudnn["refused"] and cudnn["off"] is None
        qkv = next(step for step in one["steps"] if step["step"] == "qkv")
        assert qkv["operations"] == 2 * 8 * one["batch"] * 192 * 64


@INTERPRETED
@pytest.mark.parametrize("step", [*beside.STEPS])
def test_a_chain_takes_the_weights_of_each_repetition(batch, step):
    """Two repetitions against FP64, ours and the libraries', but for attention: ours takes its result as queries."""
    layers = batch.weights.layers
    plain = beside.Library(batch.batch, batch.weights.heads, SDPBackend.MATH)
    exact = plain.chain(step, [beside.doubled(layer) for layer in layers], beside.doubled(batch.given))
    ours = batch.ours["one after the other", False]
    answers = [plain.chain(step, layers, batch.given)]
    if step != "attention":
        answers.append(ours.chain(step, 2, batch.given))
    for answer in answers:
        assert ((answer.double() - exact).norm(dim=-1) / exact.norm(dim=-1)).max() < 2e-3
    once = plain.chain(step, layers[:1], batch.given)
    assert step == "attention" or (once.double() - exact).norm() > 0.1 * exact.norm()


def test_a_library_that_drops_the_mask_is_refused(batch):
    exact = batch.exact("attention", masked=True)
    mask = next(iter(batch.masks.values()))
    right = batch.of_library("right", "attention", SDPBackend.MATH, mask=mask)
    wrong = batch.of_library("wrong", "attention", SDPBackend.MATH)
    for one in (right, wrong):
        one.judge(exact)
    assert right.refused is None and right.off < 1e-3
    assert wrong.refused == "another answer" and wrong.off > 0.1


def test_an_answer_that_is_no_number_is_refused():
    one = contender("nan", None, float("nan"))
    one.judge(torch.ones(2, 3).double())
    assert one.refused == "another answer" and one.record()["off"] is None


def test_both_masks_say_the_same(batch):
    rows, out = batch.masks.values()
    assert out.is_contiguous() and out.shape == (2, 1, 8, 8) and torch.equal(rows.expand_as(out), out)
    assert torch.equal(rows[:, 0, 0] == 0, batch.mask != 0)


def test_weights_of_a_chain_are_twice_what_l2_holds(batch):
    layer = batch.weights.layers[0]
    for step, linear in (("qkv", layer.qkv), ("out", layer.out), ("down", layer.down)):
        count = beside.repetitions(step, layer, 2, 10**6)
        assert (count - 1) * linear.weight.nbytes < 2 * 10**6 <= count * linear.weight.nbytes
    assert beside.repetitions("attention", layer, 2, 10**6) == beside.repetitions("layer", layer, 2, 10**6) == 2
    assert beside.repetitions("qkv", layer, 24, 0) == 24


def test_blocks_take_turns_and_one_that_was_refused_takes_no_part():
    card = Card()
    contenders = [
        contender("ours", lambda: 100.0),
        contender("wrong", lambda: 1.0, answer=2.0),
        contender("its", lambda: 50.0),
    ]
    for one in contenders:
        one.judge(torch.ones(2, 3).double())
    replays = beside.alternate(contenders, 10, 0.021, card)
    # 21 ms for 14 blocks of each; the second look at both says 158.5 us a replay of each in turn
    assert replays == int(21_000 / (100 * 1.03 + 50 * 1.04) / 14) == 9
    blocks = [graph for graph, many in card.seen if many == replays]
    assert blocks == [100.0, 50.0] * (beside.WARM + beside.ROUNDS)
    assert [len(one.us) for one in contenders] == [11, 0, 11]
    assert contenders[0].us[0] == pytest.approx(10 * (1 + 0.01 * (4 + 6 + 1)))
    ratios = sorted(its / mine for mine, its in zip(contenders[0].us, contenders[2].us, strict=True))
    line = beside.row("1 | qkv", contenders[2], contenders[0], 10**9, 500.0)
    middle = contenders[2].median
    assert ratios[5] < 0.6 and f"| {ratios[5]:.2f} ({ratios[0]:.2f} to {ratios[-1]:.2f}) |" in line
    assert f"| {1e3 / middle:.0f} | {1e3 / middle / 500:.0%} |" in line
    assert "| wrong | refused: another answer |" in beside.row("1 | qkv", contenders[1], contenders[0], 10**9, None)


def test_replays_have_bounds():
    for seconds, expected in ((0.0, 1), (1e9, beside.REPLAYS)):
        assert beside.alternate([contender("ours", lambda: 100.0)], 1, seconds, Card()) == expected


def test_a_capture_that_fails_leaves_the_others_and_a_dead_device_ends_all():
    def fails():
        raise RuntimeError("operation not permitted when stream is capturing")

    card, contenders = Card(), [contender("ours", lambda: 100.0), contender("its", fails)]
    beside.alternate(contenders, 1, 1.0, card)
    assert len(contenders[0].us) == 11 and "stream is capturing" in contenders[1].refused and not contenders[1].us
    card.alive = False
    with pytest.raises(RuntimeError, match=r"runs nothing any more.*stream is capturing"):
        beside.alternate([contender("its", fails)], 1, 1.0, card)


@INTERPRETED
def test_the_layer_takes_the_fastest_attention_that_reads_its_mask(batch):
    class Slow(Card):
        """The written-out mask is faster than rows; what it runs, ours and theirs, is the chain itself."""

        def captured(self, chain):
            mask = getattr(getattr(chain.func, "__self__", None), "mask", None)
            return 10.0 if mask is not None and mask.shape[2] > 1 else 20.0

    records = {one["step"]: one for one in beside.compared(batch, 1.0, Slow(), 500.0)}
    assert [one["name"] for one in records["layer, mask"]["contenders"]] == [
        "ours, one after the other",
        "libraries, flash, mask written out",
    ]
    assert all(len(one["us"]) == 11 for one in records["layer"]["contenders"])

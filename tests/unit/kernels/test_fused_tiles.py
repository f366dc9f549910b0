"""The tuner of tiles, with a double of the card: order, what it keeps and refuses, and how it ends."""

import json
import sys
import time

import pytest

pytest.importorskip("triton", reason="triton is not installed: make kernels")

from triton.runtime.errors import OutOfResources
from unit.kernels import tuner

from ceilings.kernels import tiles
from ceilings.kernels.encoder import Encoder
from ceilings.kernels.tiles import AttentionTile

fused_tiles = tuner.module()
FOREVER = float("inf")


@pytest.fixture(scope="module", params=["fp16", "fp8"])
def encoder(request):
    cut = tiles.defaults(128, request.param)
    return Encoder(fused_tiles.weights_of(1, request.param, "cpu"), 1, 128, cut)


@pytest.fixture
def account(tmp_path):
    return fused_tiles.Account(tmp_path / "account.json", tmp_path / "tiles.json", "a-card", "a-size")


@pytest.fixture
def few(monkeypatch):
    """Only the steps with few tiles."""
    monkeypatch.setattr(fused_tiles, "STEPS", ("attention", "row_warps"))


def test_tiles_of_the_least_traffic_come_first(encoder):
    for step in ("qkv", "out", "up", "down"):
        weight = getattr(encoder.weights.layers[0], step).weight
        size = weight.element_size()
        made = fused_tiles.candidates(step, 128, *weight.shape, size)
        cost = [fused_tiles.traffic(tile, 128, *weight.shape, size) for tile in made]
        assert len(made) > 5 and cost == sorted(cost)
        assert {tile.inner * size for tile in made} == {128, 256}
        assert all(weight.shape[1] % (tile.inner * tile.splits) == 0 for tile in made)


def test_the_busiest_multiprocessor_counts():
    """144 programs are two for some multiprocessors, so they load more there than 72 larger ones."""
    small, large = tiles.ProductTile(64, 32, 128), tiles.ProductTile(64, 64, 128)
    traffic = [fused_tiles.traffic(tile, 128, 2304, 768, 2) for tile in (small, large)]
    assert traffic == [2 * 2 * 96 * 768 + 8 * 128 * 2304 / 132, 2 * 128 * 768 + 8 * 128 * 2304 / 132]


def test_it_ends_at_the_least_and_has_saved_it(encoder, account, tmp_path):
    chosen = fused_tiles.Tuning(encoder, account, FOREVER, tuner.Card).run()
    saved = json.loads((tmp_path / "tiles.json").read_text())["a-card"]["a-size"]
    assert tiles.read(saved) == chosen
    best = tuner.Card.timed(fused_tiles.with_tiles(encoder, chosen))[0]
    for step in fused_tiles.STEPS:
        near = fused_tiles.tried(fused_tiles.with_tiles(encoder, chosen), step)
        assert best <= min(tuner.Card.timed(fused_tiles.with_tiles(encoder, cut))[0] for cut in near)
    entries = json.loads((tmp_path / "account.json").read_text())["account"]
    assert entries == account.entries and not any("running" in entry for entry in entries)
    rounds = {entry["round"] for entry in entries[1:]}
    assert rounds == set(range(1, max(rounds) + 1)) and not any(
        entry.get("chosen") for entry in entries if entry.get("round") == max(rounds)
    )


def test_each_improvement_is_saved_before_the_next_is_tried(encoder, account, tmp_path):
    kept = []

    class Watched(tuner.Card):
        @staticmethod
        def timed(encoder):
            kept.append((tmp_path / "tiles.json").read_text() if (tmp_path / "tiles.json").is_file() else None)
            return 100.0 - len(kept), tuner.Card.timed(encoder)[1]

    fused_tiles.Tuning(encoder, account, time.monotonic() + 0.5, Watched).run()
    assert len(set(kept)) > 5, "each measurement is faster than the one before it"


@pytest.mark.usefixtures("few")
@pytest.mark.parametrize(
    ("problem", "said"),
    [
        (OutOfResources(300_000, 232_448, "shared memory"), "OutOfResources"),
        (RuntimeError("PassManager::run failed"), "PassManager"),
        (float("nan"), "another answer"),
        (2.0, "another answer"),
    ],
)
def test_a_tile_that_cannot_be_used_is_refused_and_the_others_tried(encoder, account, problem, said):
    class Card(tuner.Card):
        @staticmethod
        def timed(encoder):
            us, states = tuner.Card.timed(encoder)
            if encoder.tiles.attention.queries == 64:
                if isinstance(problem, Exception):
                    raise problem
                states[0, 3] *= problem  # of one token
                us /= 10
            return us, states

    chosen = fused_tiles.Tuning(encoder, account, FOREVER, Card).run()
    refused = [entry for entry in account.entries if "refused" in entry]
    assert chosen.attention.queries == 32 and {entry["tile"]["queries"] for entry in refused} == {64}
    assert all(said in entry["refused"] for entry in refused)


@pytest.mark.usefixtures("few")
def test_what_looks_fast_once_is_timed_again(encoder, account):
    seen = set()

    class Lucky(tuner.Card):
        @staticmethod
        def timed(encoder):
            us, states = tuner.Card.timed(encoder)
            first = encoder.tiles not in seen
            seen.add(encoder.tiles)
            return (us / 2 if first and encoder.tiles.row_warps == 8 else us), states

    chosen = fused_tiles.Tuning(encoder, account, FOREVER, Lucky).run()
    (entry,) = [one for one in account.entries if one["step"] == "row_warps" and one["tile"] == 8 and one["round"] == 1]
    assert chosen.row_warps == 4 and entry["again"] > entry["us"] and "chosen" not in entry


@pytest.mark.usefixtures("few")
def test_compilers_that_fail_together_are_tried_one_by_one(encoder, account, capsys):
    class Card(tuner.Card):
        @staticmethod
        def compile_beside(encoders):
            assert 0 < len(encoders) <= fused_tiles.AT_ONCE
            raise RuntimeError("no threads")

    assert fused_tiles.Tuning(encoder, account, FOREVER, Card).run() != encoder.tiles
    assert "compiled one after the other: RuntimeError: no threads" in capsys.readouterr().out


def test_it_stops_when_time_is_up(encoder, account):
    class Slow(tuner.Card):
        @staticmethod
        def timed(encoder):
            time.sleep(0.02)
            return tuner.Card.timed(encoder)

    began = time.monotonic()
    fused_tiles.Tuning(encoder, account, began + 0.5, Slow).run()
    assert time.monotonic() - began < 0.8 and 5 < len(account.entries) < 30


@pytest.mark.slow
def test_a_fault_and_a_hang_end_a_process_and_another_goes_on(tmp_path):
    command = [sys.executable, tuner.__file__, str(tmp_path)]
    path = tmp_path / "account.json"
    assert fused_tiles.supervised(command, path, time.monotonic() + 60, patience=8) == 0
    entries = json.loads(path.read_text())["account"]
    tried = {tuple(entry["tile"].values())[:2]: entry for entry in entries if entry["step"] == "attention"}
    assert set(tried) == {(queries, keys) for queries in (16, 32, 64) for keys in (32, 64, 128)}
    assert "illegal memory access" in tried[32, 64]["refused"]
    assert "ended or hung" in tried[64, 32]["refused"]
    assert [entry["step"] for entry in entries].count("start") == 3, "three processes"
    assert tiles.kept("a-card", "a-size", tmp_path / "tiles.json").attention == AttentionTile(64, 128)


def test_an_error_of_the_program_s_is_not_repeated(tmp_path):
    command = [sys.executable, "-c", f"open({str(tmp_path / 'count')!r}, 'a').write('x'); raise SystemExit(1)"]
    assert fused_tiles.supervised(command, tmp_path / "account.json", time.monotonic() + 60) == 1
    assert (tmp_path / "count").read_text() == "x"


def test_a_process_that_overruns_is_ended(tmp_path):
    command = [sys.executable, "-c", "import time; time.sleep(600)"]
    began = time.monotonic()
    assert fused_tiles.supervised(command, tmp_path / "account.json", began + 0.3, patience=0.9) == 1
    assert time.monotonic() - began < 5

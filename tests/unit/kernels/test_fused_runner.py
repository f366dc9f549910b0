"""The runner of the fused encoder, as far as it goes without a card: what it makes of a folder's module and a shape."""

import json
import os
from pathlib import Path
from types import SimpleNamespace

import pytest

pytest.importorskip("triton", reason="triton is not installed: make kernels")

from triton.runtime.errors import OutOfResources
from unit.kernels import families

from ceilings.errors import CellFailure
from ceilings.kernels import tiles
from ceilings.kernels.tiles import Tiles
from ceilings.runtimes import ceilings_fused
from ceilings.runtimes.catalogue import OVERLAP, PROJECTED, RUNTIMES
from ceilings.workload.shape import Shape

NAMES = [name for name, runtime in RUNTIMES.items() if runtime.module == "ceilings_fused"]


@pytest.fixture
def runner(tmp_path, monkeypatch):
    """A runner whose weights folder holds a small BERT, on a card of that name."""
    asked = {}
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))

    def load_module(folder, dtype, device):
        asked.update(folder=folder, dtype=dtype, device=device)
        return families.encoder("bert answers")

    monkeypatch.setattr(ceilings_fused, "load_module", load_module)
    monkeypatch.setattr(ceilings_fused.gpu, "visible", lambda: SimpleNamespace(slug="a-card"))
    monkeypatch.setattr(ceilings_fused, "multiprocessors", lambda: 3)

    def make(name, shape="b2-s21", precision="fp16"):
        made = ceilings_fused.RUNNER(tmp_path, precision, None, Shape.parse(shape), 1, RUNTIMES[name].options)
        made.asked = asked
        return made

    return make


@pytest.mark.parametrize("name", NAMES)
def test_the_encoder_is_of_the_cell(runner, name):
    made = runner(name)
    encoder = made._model()
    assert made.asked == {"folder": made.artifact, "dtype": "float16", "device": "cuda"}
    assert (encoder.batch, encoder.sequence, encoder.overlapped) == (2, 21, OVERLAP in RUNTIMES[name].levers)
    assert encoder.projected == (PROJECTED in RUNTIMES[name].levers)
    assert Path(os.environ["TRITON_CACHE_DIR"]).is_dir()
    assert os.environ["TRITON_CACHE_DIR"] != str(made.artifact), "what an earlier process compiled makes a start warm"
    assert encoder.tiles == (tiles.PERSISTENT if "persistent" in name else Tiles())
    assert RUNTIMES[name].options["mode"] == "cudagraph"
    assert [tuple(output.shape) for output in encoder.outputs()] == [(2, 21), (2, 21)]


@pytest.mark.usefixtures("interpreted")
@pytest.mark.parametrize(("precision", "within"), [("fp16", 5e-3), ("fp8", 0.15)])
def test_its_outputs_are_the_module_s(runner, precision, within):
    encoder = runner("ceilings-fused-serial", "b1-s9", precision)._model()
    ids, mask = families.request(1, 9)
    for mine, theirs in zip(encoder(ids, mask), families.encoder("bert answers")(ids, mask), strict=True):
        assert (mine - theirs).norm() < within * theirs.norm()


def test_the_persistent_runtime_has_a_program_a_multiprocessor_and_refuses_fp8(runner):
    encoder = runner("ceilings-fused-persistent")._model()
    first, *rest = encoder.launches(*families.request(2, 21))
    assert (first.step, first.grid, first.cooperative) == ("encoder", (3, 1, 1), True)
    assert [launch.step for launch in rest] == ["head"]
    with pytest.raises(CellFailure, match="FP16 alone"):
        runner("ceilings-fused-persistent", precision="fp8")._model()


def test_attention_with_its_projection_is_one_launch_of_the_projected_runtime_and_refuses_fp8(runner):
    made = runner("ceilings-fused-projected")._model()
    steps = [launch.step for launch in made.launches(*families.request(2, 21))]
    assert "projection" in steps and not {"attention", "out"} & set(steps)
    assert made.products() == {"fp16": 2 * 4 + 1}
    with pytest.raises(CellFailure, match="FP16 alone"):
        runner("ceilings-fused-projected", precision="fp8")._model()


def test_in_fp8_the_weights_are_quantised_and_the_record_counts_products(runner):
    encoder = runner("ceilings-fused", precision="fp8")._model()
    assert encoder.weights.precision == "fp8" and encoder.tiles == tiles.defaults(42, "fp8") != Tiles()
    assert encoder.products() == {"fp8": 8, "fp16": 3}


def test_a_tile_that_does_not_fit_is_a_reason(runner):
    said = "a kernel's tile does not fit this GPU: out of resource: shared memory"
    with pytest.raises(CellFailure, match=said), runner("ceilings-fused").failures():
        raise OutOfResources(300_000, 232_448, "shared memory")


def test_tuned_tiles_are_of_one_device_and_one_shape(tmp_path):
    kept, tuned = tmp_path / "tuned.json", Tiles(row_warps=8, attention=tiles.AttentionTile(32, 64))
    size = tiles.sizes(128, 768, 3072, 12, "fp16")
    kept.write_text(json.dumps({"a-card": {size: tiles.written(tuned)}}))
    assert tiles.kept("a-card", size, kept) == tuned
    assert tiles.kept("another", size, kept) is None
    assert tiles.kept("a-card", tiles.sizes(128, 768, 3072, 12, "fp8"), kept) is None
    kept.write_text(json.dumps({"a-card": {size: {"qkv": {"tall": 1}}}}))
    with pytest.raises(ValueError, match="tune anew"):
        tiles.kept("a-card", size, kept)

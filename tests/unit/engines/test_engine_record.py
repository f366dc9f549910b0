"""An engine's bytes are handed out where it belongs, and nowhere else."""

from __future__ import annotations

import shutil

import pytest

from ceilings import records
from ceilings.engines import engine_record as record
from ceilings.engines import produce
from ceilings.errors import CellFailure, UserError

HERE = {"builder": "tensorrt10", "version": "10.16.1.11", "device": "nvidia-h200", "capability": (9, 0)}


@pytest.fixture(scope="module")
def built(graphs, spec, tmp_path_factory):
    path = tmp_path_factory.mktemp("built") / "b1-s32.engine"
    produce.produce(spec(), graphs["fp16"], path, precision="fp16", device="sm-8.9")
    return path


@pytest.fixture
def engine(built, tmp_path):
    """A real engine, whose record then says that TensorRT 10 built it on an H200."""
    path = tmp_path / built.name
    for source in (built, record.sidecar(built)):
        shutil.copy(source, tmp_path)
    stored(path, builder="tensorrt10", builder_version="10.16.1.11", capabilities=[[9, 0]])
    stored(path, device="nvidia-h200", gpu="NVIDIA H200")
    return path


def stored(path, **changes):
    records.write(record.sidecar(path), "engine", records.read(record.sidecar(path)) | changes)


def test_an_engine_that_belongs_here_is_handed_out(engine):
    assert record.verified(engine, **HERE) == engine.read_bytes()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"builder": "tensorrt11"}, "it was built by tensorrt10, and tensorrt11 would load it"),
        ({"version": "10.16.2.1"}, "built by version 10.16.1.11, and 10.16.2.1 would load it"),
        ({"capability": (8, 9)}, "for compute capability 9.0, and this GPU has 8.9"),
        ({"device": "nvidia-h100"}, "built on nvidia-h200, and this GPU is nvidia-h100"),
    ],
)
def test_an_engine_from_elsewhere_is_refused(engine, changes, message):
    with pytest.raises(CellFailure, match=message) as caught:
        record.verified(engine, **{**HERE, **changes})
    assert caught.value.kind == "engine-incompatible"
    assert f"rebuild it with `snakemake --cores 1 --force {engine}`" in str(caught.value)


@pytest.mark.parametrize(
    "damage",
    [lambda content: content[:-1], lambda content: b"\0" + content[1:], lambda content: b""],
    ids=["truncated", "edited", "empty"],
)
def test_a_damaged_engine_is_refused(engine, damage):
    engine.write_bytes(damage(engine.read_bytes()))
    with pytest.raises(CellFailure, match="not what was built") as caught:
        record.verified(engine, **HERE)
    assert caught.value.kind == "engine-incompatible"


def test_an_engine_without_its_record_is_refused(engine):
    record.sidecar(engine).write_text("{")
    with pytest.raises(UserError, match=r"is damaged .* rebuild it with `snakemake --cores 1 --force"):
        record.verified(engine, **HERE)
    record.sidecar(engine).unlink()
    with pytest.raises(UserError, match="does not exist; rebuild it"):
        record.verified(engine, **HERE)


def test_what_the_builder_made_compatible_may_be_loaded(engine):
    stored(engine, version_compatible=True)
    assert record.verified(engine, **{**HERE, "version": "10.17.0.2"})
    for version in ("10.15.0.1", "11.4.0.106"):
        with pytest.raises(CellFailure, match="built by version"):
            record.verified(engine, **{**HERE, "version": version})
    stored(engine, hardware_compatibility="same-compute-capability")
    assert record.verified(engine, **{**HERE, "device": "nvidia-h100"})
    stored(engine, hardware_compatibility="ampere-plus")
    assert record.verified(engine, **{**HERE, "device": "nvidia-l4", "capability": (8, 9)})
    with pytest.raises(CellFailure, match=r"8\.0 or newer, and this GPU has 7\.5"):
        record.verified(engine, **{**HERE, "device": "tesla-t4", "capability": (7, 5)})


def test_an_engine_for_a_capability_runs_on_every_such_gpu(engine):
    stored(
        engine, builder="tensorrt-rtx", builder_version="1.7.1.116", capabilities=[[8, 9]], gpu=None, device="sm-8.9"
    )
    rtx = {"builder": "tensorrt-rtx", "version": "1.7.1.116", "capability": (8, 9)}
    assert record.verified(engine, device="nvidia-geforce-rtx-4090", **rtx)


def test_a_build_that_failed_gives_its_own_class(engine):
    stored(engine, status="failed", failure={"kind": "unsupported", "message": "the parser refuses x"})
    with pytest.raises(CellFailure, match="no engine: the parser refuses x") as caught:
        record.verified(engine, **HERE)
    assert caught.value.kind == "unsupported"

"""What a study says of TensorRT's runtimes on a machine that lacks something they need."""

from __future__ import annotations

import importlib
from pathlib import Path

import pytest
import yaml
from unit.planted_packages import install

from ceilings import host as hosts
from ceilings import packages
from ceilings.engines import libraries
from ceilings.runtimes.catalogue import RUNTIMES
from ceilings.study.availability import availability
from ceilings.study.study import Study

STUDY = Path(__file__).parents[3] / "studies" / "tensorrt.yaml"
NEEDED = {"onnxruntime-gpu": "1.31.1", "pycuda": "2026.1", "cuda-bindings": "13.3.1", "nvidia-ml-py": "13.6"}
RTX_PLUGIN = {"onnxruntime-ep-nv-tensorrt-rtx-cu13": "0.5.0"}


def host(capability=(9, 0), name="NVIDIA H200"):
    gpu = hosts.Gpu("nvidia-h200", name, "GPU-1", "580.1", capability, 141 << 30)
    return hosts.Host("cpu-test", "Test", 4, gpu, None)


@pytest.fixture
def machine(tmp_path, monkeypatch):
    """Makes packages and empty libraries appear."""
    site, lib = tmp_path / "site", tmp_path / "lib"
    site.mkdir()
    lib.mkdir()
    monkeypatch.syspath_prepend(str(site))
    monkeypatch.setenv("LD_LIBRARY_PATH", str(lib))
    forget()

    def have(versions, *sonames):
        for name, version in versions.items():
            install(site, name, version)
        for soname in sonames:
            (lib / soname).touch()
        forget()

    yield have
    forget()


def forget():
    """What was looked up so far."""
    importlib.invalidate_caches()
    libraries.find.cache_clear()
    packages._found.cache_clear()
    packages._records.cache_clear()


def reason(runtime, machine=None, precision="fp16"):
    found = availability(RUNTIMES[runtime], precision, machine or host())
    assert bool(found.reason) == bool(found.remedy)
    return found.reason and f"{found.reason}: {found.remedy}"


def test_each_missing_part_is_named_with_its_remedy(machine):
    machine(NEEDED)
    assert reason("tensorrt") == "TensorRT 11 is not installed: run in an environment with it: envs/tensorrt11.yaml"
    assert reason("onnxruntime-tensorrt").startswith(
        "libnvinfer.so.10 is neither where the dynamic linker looks nor in"
    )
    assert "tensorrt-cu13-libs==10.*" in reason("onnxruntime-tensorrt")
    machine({"tensorrt-cu13-bindings": "10.16.1.11"})
    assert reason("tensorrt10").startswith("libnvinfer.so.10 is neither")
    assert reason("tensorrt") == (
        "tensorrt-cu13-bindings is 10.16.1.11; tensorrt11 needs 11.x: "
        "run in an environment with it: envs/tensorrt11.yaml"
    )
    machine({}, "libnvinfer.so.10")
    assert reason("tensorrt10") is None and reason("onnxruntime-tensorrt-graph") is None
    assert reason("tensorrt-graph") is not None


@pytest.mark.parametrize(
    ("capability", "native", "plugin"),
    [((8, 0), 1, 0), ((8, 6), 1, 1), ((9, 0), 0, 0), ((10, 0), 0, 0), ((12, 0), 1, 1)],
)
def test_tensorrt_for_rtx_runs_on_rtx_cards_only(machine, capability, native, plugin):
    machine({**NEEDED, **RTX_PLUGIN, "tensorrt-rtx-cu13-bindings": "1.7.1.116"}, "libtensorrt_rtx.so.1")
    card = host(capability, "NVIDIA Card")
    for runtime, can in (("tensorrt-rtx-graph", native), ("onnxruntime-tensorrt-rtx", plugin)):
        text = reason(runtime, card)
        assert (text is None) == bool(can)
        version = ".".join(map(str, capability))
        assert can or text.startswith(f"NVIDIA Card has compute capability {version}; {runtime} runs on 8.")


def test_a_library_is_found_in_the_vendor_s_package_without_importing_it(tmp_path, monkeypatch):
    package = tmp_path / "tensorrt_libs"
    package.mkdir()
    (package / "__init__.py").write_text("raise RuntimeError('imported')")
    (package / "libnvinfer.so.10").write_bytes(b"1234")
    monkeypatch.syspath_prepend(str(tmp_path))
    libraries.find.cache_clear()
    assert libraries.find("libnvinfer.so.10") == package / "libnvinfer.so.10"
    assert libraries.version("libnvinfer.so.10") == "libnvinfer.so.10 (4 bytes)"
    libraries.find.cache_clear()


def test_two_environments_one_after_the_other_give_one_summary(machine, tmp_path):
    """TensorRT 10 and 11 exclude each other: what one recorded stays, is read, and is not made again."""
    config = yaml.safe_load(STUDY.read_text())
    machine({**NEEDED, "tensorrt": "10.16.1.11"}, "libnvinfer.so.10")
    results = str(tmp_path / "results")
    first = Study(config, host(), results)
    of = {c.runtime: c for c in first.cells if (c.precision, c.shape.batch) == ("fp16", 1)}
    assert of["tensorrt10"].available and not of["tensorrt"].available
    for run in of["tensorrt10"].runs:
        Path(run).parent.mkdir(parents=True, exist_ok=True)
        Path(run).touch()
    machine({"tensorrt": "11.4.0.106"}, "libnvinfer.so.11")
    second = Study(config, host(), results)
    then = {c.runtime: c for c in second.cells if (c.precision, c.shape.batch) == ("fp16", 1)}
    assert then["tensorrt"].available and not then["tensorrt"].recorded
    assert then["tensorrt10"].recorded and then["tensorrt10"].runs == of["tensorrt10"].runs
    recorded = set(second.targets.recorded_runs)
    assert set(then["tensorrt10"].runs) <= recorded and not recorded & set(second.targets.runs)
    assert not then["tensorrt10-graph"].available


def test_a_kept_engine_is_shared_by_the_runtimes_that_start_from_it_and_keyed_by_gpu_and_version(machine):
    machine(NEEDED, "libnvinfer.so.10")
    study = Study(yaml.safe_load(STUDY.read_text()), host())
    kept = study.artifact("onnxruntime-tensorrt", "distilbert", "tf32", "b1-s128", "nvidia-h200")
    base = "results/engines/nvidia-h200/onnxruntime-tensorrt-1.31.1/distilbert/tf32/b1-s128.cache"
    graph = ["results/onnx/distilbert/fp32.onnx", "results/onnx/distilbert/fp32.json"]
    assert kept == [f"{base}.json", base, *graph]
    assert kept == study.artifact("onnxruntime-tensorrt-graph", "distilbert", "tf32", "b1-s128", "nvidia-h200")
    assert ("distilbert", "fp16") in study.targets.graphs  # behind the parity gate like every graph

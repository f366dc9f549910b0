"""The runner of PyTorch with our attention, as far as it goes without a card."""

import os
from pathlib import Path

import pytest

pytest.importorskip("triton", reason="triton is not installed: make kernels")

from triton.runtime.errors import OutOfResources
from unit.kernels import families

from ceilings.errors import CellFailure
from ceilings.runtimes import torch_operator_cuda
from ceilings.runtimes.catalogue import RUNTIMES
from ceilings.workload.shape import Shape

NAMES = [name for name, runtime in RUNTIMES.items() if runtime.module == "torch_operator_cuda"]


@pytest.fixture
def runner(tmp_path, monkeypatch):
    """A runner and what it asks of the loader."""
    asked = []
    monkeypatch.setenv("TRITON_CACHE_DIR", "an earlier process's")
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", "an earlier process's")
    monkeypatch.setattr(
        torch_operator_cuda, "load_module", lambda *of: (asked.append(of), families.encoder("bert answers"))[1]
    )
    made = torch_operator_cuda.RUNNER(tmp_path, "fp16", None, Shape.parse("b1-s9"), 1, RUNTIMES[NAMES[0]].options)
    made.asked = asked
    return made


def test_there_are_two():
    assert NAMES == ["torch-compile-operator", "torch-cudagraph-operator"]


def test_the_model_is_loaded_with_the_operator_s_attention(runner):
    from transformers import AttentionInterface

    runner._model()
    assert runner.asked == [(runner.artifact, "ceilings", "float16", "cuda")]
    assert "ceilings" in AttentionInterface()


def test_our_kernels_keep_their_cache_beside_inductor_s(runner):
    runner._model()
    ours = os.environ["TRITON_CACHE_DIR"]
    runner._open_compile_cache()
    assert os.environ["TRITON_CACHE_DIR"] == ours and Path(ours).is_dir()
    assert os.environ["TORCHINDUCTOR_CACHE_DIR"] not in (ours, "an earlier process's")


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (OutOfResources(300_000, 232_448, "shared memory"), "a kernel's tile does not fit this GPU"),
        (ValueError("ceilings::attention is of encoders"), "ceilings::attention is of encoders"),
    ],
)
def test_what_the_kernel_cannot_do_is_a_reason(runner, error, message):
    with pytest.raises(CellFailure, match=message), runner.failures():
        raise error


def test_another_error_is_none(runner):
    with pytest.raises(ValueError, match="of another kind"), runner.failures():
        raise ValueError("of another kind")

"""Memory that client and server share: where tensors lie in it, and that it goes."""

import ctypes
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from cuda.bindings import runtime as cudart
from unit.measure.simulated_cuda import OK, TO_DEVICE, SimulatedCuda

from ceilings.environment import known
from ceilings.lifetime import SHARED_MEMORY, clean_folders
from ceilings.serving.kserve import TransportError
from ceilings.serving.shared_memory import SystemRegion, placed


def test_tensors_lie_apart_and_outputs_have_room():
    tensors = {"a": np.arange(100, dtype=np.int64), "empty": np.zeros((0, 3), np.float32), "b": np.ones(1, np.float16)}
    region, places = placed("system", tensors, {"y": 1000})
    assert list(places) == ["a", "empty", "b", "y"] and places["y"].nbytes == 1000
    for (_, one), (_, other) in zip(places.items(), list(places.items())[1:], strict=False):
        assert one.offset + one.nbytes <= other.offset and other.offset % 256 == 0
    for name, array in tensors.items():
        assert region.read(places[name].offset, places[name].nbytes) == array.tobytes()
    # Another process sees it by its key.
    path = Path(SHARED_MEMORY, region.key.lstrip("/"))
    assert path.read_bytes()[:800] == tensors["a"].tobytes()
    with pytest.raises(TransportError, match="not within"):
        region.write(region.nbytes - 1, b"ab")
    with pytest.raises(TransportError, match="not within"):
        region.read(0, region.nbytes + 1)
    region.close()
    assert not path.exists()


def test_an_output_called_as_an_input_is_refused():
    with pytest.raises(TransportError, match="of one name"):
        placed("system", {"x": np.zeros(1)}, {"x": 8})


def test_more_than_there_is():
    before = set(Path(SHARED_MEMORY).iterdir())
    with pytest.raises(TransportError, match="bytes of shared memory"):
        SystemRegion(1 << 50)
    assert set(Path(SHARED_MEMORY).iterdir()) == before


def test_no_cuda_here_is_said():
    try:
        from ceilings.cuda import device
    except ImportError:
        device = None
    if device is not None and device.problem() is None:
        pytest.skip("a CUDA device is here")
    with pytest.raises(TransportError, match="no CUDA shared memory here"):
        placed("cuda", {"x": np.zeros(1)}, {})


class SharingCuda(SimulatedCuda):
    """Memory that another process could open, in whole blocks; late copies are done by a wait alone."""

    def __init__(self):
        super().__init__()
        self.allocated, self.late = [], []

    def cudaMalloc(self, nbytes):
        self.allocated.append(nbytes)
        return super().cudaMalloc(nbytes)

    def cudaIpcGetMemHandle(self, pointer):
        handle = cudart.cudaIpcMemHandle_t()
        handle.reserved = pointer.to_bytes(64, "little")
        return OK, handle

    def cudaMemcpy(self, to, source, nbytes, kind):
        if kind == TO_DEVICE:  # from pageable memory: it returns once it has read the host's
            staged = ctypes.string_at(source, nbytes)
            self.late.append(lambda: ctypes.memmove(to, staged, nbytes))
            return (OK,)
        return super().cudaMemcpy(to, source, nbytes, kind)

    def cudaDeviceSynchronize(self):
        while self.late:
            self.late.pop(0)()
        return (OK,)


def test_tensors_are_on_the_gpu_before_the_server_is_shown_them(monkeypatch):
    cuda = SharingCuda().install(monkeypatch)
    tensors = {"a": np.arange(100, dtype=np.int64), "b": np.ones(3, np.float16)}
    region, places = placed("cuda", tensors, {"y": 12})
    pointer = int.from_bytes(region.handle, "little")
    assert len(region.handle) == 64 and cuda.allocated == [2 << 20], "a block that it shares with nothing"
    for name, array in tensors.items():
        assert ctypes.string_at(pointer + places[name].offset, places[name].nbytes) == array.tobytes()
    ctypes.memmove(pointer + places["y"].offset, b"the answer!!", 12)
    assert region.read(places["y"].offset, 12) == b"the answer!!"
    region.close()


def test_the_memory_of_a_killed_process_is_removed_by_the_next_start():
    program = (
        "import os, signal; from ceilings.serving.shared_memory import SystemRegion; "
        "print(SystemRegion(10).name, flush=True); os.kill(os.getpid(), signal.SIGKILL)"
    )
    killed = subprocess.run([sys.executable, "-c", program], env=known(), capture_output=True, text=True, check=False)
    left = Path(SHARED_MEMORY, killed.stdout.strip())
    mine = SystemRegion(10)
    assert left.exists()
    clean_folders()
    assert not left.exists() and Path(SHARED_MEMORY, mine.name).exists()
    mine.close()

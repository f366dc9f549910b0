"""Which GPU a process uses, as CUDA says: device 0 of those that are visible to it. Standard library only.

``python -m ceilings.gpu`` prints it. No tool's numbering and no reading of ``CUDA_VISIBLE_DEVICES`` stands in for what
a process gets: one of several cards in CUDA's order, or a slice of a card (MIG). docs/identity.md has the rules.
"""

from __future__ import annotations

import contextlib
import ctypes
import dataclasses
import json
import os
import re
import subprocess
import sys
from typing import Any

from ceilings import environment
from ceilings.errors import UserError
from ceilings.lifetime import tied
from ceilings.slugs import gpu_name, gpu_slug

ANSWER_SECONDS = 120
"""CUDA starts in up to tens of seconds where a host has many GPUs; a driver that hangs never does."""

_LIBRARY = "libcuda.so.1"
_MULTIPROCESSORS, _MAJOR, _MINOR = 16, 75, 76  # CUdevice_attribute
_NO_DEVICE = 100


class NoGpu(UserError):
    """CUDA has no device for this process; the message is CUDA's or the loader's."""


@dataclasses.dataclass(frozen=True)
class Gpu:
    """The NVIDIA GPU that a process uses: the first visible one.

    Attributes:
        slug: Name and memory, as they stand in paths.
        name: As CUDA says it, the slice of a card included.
        uuid: Of the card, or of the slice, as NVML writes it.
        driver: Version of the driver.
        capability: Compute capability.
        memory_bytes: What CUDA may use of it.
        multiprocessors: How many this process has.
        mig: Profile of the slice, such as ``1g.10gb``; None for a whole card.
    """

    slug: str
    name: str
    uuid: str
    driver: str
    capability: tuple[int, int]
    memory_bytes: int
    multiprocessors: int = 0
    mig: str | None = None


def visible() -> Gpu:
    """The GPU of this process.

    Raises:
        NoGpu: There is none, or CUDA cannot start.
    """
    cuda, _ = _started()
    return _read(cuda, 0)


def every() -> list[Gpu]:
    """Every GPU that is visible to this process, in CUDA's order; beside the first those that answer.

    Raises:
        NoGpu: There is none, or CUDA cannot start.
    """
    cuda, count = _started()
    found = [_read(cuda, 0)]
    for index in range(1, count):
        with contextlib.suppress(NoGpu):  # a card that fails must not take the first one with it
            found.append(_read(cuda, index))
    return found


def _started() -> tuple[_Driver, int]:
    """The driver and how many GPUs it has for this process, one at least."""
    cuda = _Driver()
    cuda.call("cuInit", 0)
    count = ctypes.c_int()
    cuda.call("cuDeviceGetCount", ctypes.byref(count))
    if not count.value:
        raise NoGpu("CUDA has no device")
    return cuda, count.value


def _read(cuda: _Driver, index: int) -> Gpu:
    device = ctypes.c_int()
    cuda.call("cuDeviceGet", ctypes.byref(device), index)
    text, memory = ctypes.create_string_buffer(256), ctypes.c_size_t()
    cuda.call("cuDeviceGetName", text, len(text), device)
    cuda.call("cuDeviceTotalMem_v2", ctypes.byref(memory), device)
    attributes = []
    for number in (_MULTIPROCESSORS, _MAJOR, _MINOR):
        value = ctypes.c_int()
        cuda.call("cuDeviceGetAttribute", ctypes.byref(value), number, device)
        attributes.append(value.value)
    multiprocessors, major, minor = attributes
    name = gpu_name(text.value.decode(errors="replace"))
    # Of a slice, the newer call gives its own and the older one its card's.
    uuid, card = cuda.uuid("cuDeviceGetUuid_v2", device), cuda.uuid("cuDeviceGetUuid", device)
    profile = re.search(r"\bMIG (\S+)", name)
    mig = profile[1] if profile else None
    if mig is None and uuid != card:  # a driver whose names say nothing of slices
        mig = f"{multiprocessors}sm"
        name = f"{name} MIG {mig}"
    return Gpu(
        slug=gpu_slug(name, memory.value),
        name=name,
        uuid=f"{'MIG' if mig else 'GPU'}-{uuid}",
        driver=_driver_version() or cuda.version(),
        capability=(major, minor),
        memory_bytes=memory.value,
        multiprocessors=multiprocessors,
        mig=mig,
    )


def ask_every() -> list[Gpu]:
    """Every GPU that a process started now would see.

    Raises:
        NoGpu: There is none.
    """
    answer, problem = _asked()
    if not answer:
        raise NoGpu(problem or "")
    return [from_json(one) for one in answer]


def _asked() -> tuple[list[dict[str, Any]], str | None]:
    """What a process started now sees, or why it sees nothing.

    A separate process starts CUDA: CUDA may hang or crash, and it keeps memory until its process ends.
    """
    try:
        ctypes.CDLL(_LIBRARY)
    except OSError as error:
        return [], f"no CUDA device on this machine ({error})"
    try:
        done = subprocess.run(
            [sys.executable, "-m", "ceilings.gpu"],
            env={**os.environ, **environment.known()},
            capture_output=True,
            text=True,
            errors="replace",
            timeout=ANSWER_SECONDS,
            check=False,
            preexec_fn=tied(2 * ANSWER_SECONDS),
        )
    except subprocess.TimeoutExpired:
        return [], f"CUDA did not start within {ANSWER_SECONDS} s"
    except OSError as error:
        return [], f"CUDA could not be asked ({error})"
    lines = done.stdout.strip().splitlines()
    if done.returncode or not lines:
        last = (done.stderr.strip().splitlines() or [f"ended with status {done.returncode}"])[-1]
        return [], f"CUDA could not be asked ({last})"
    answer = json.loads(lines[-1])  # a library may print before
    return answer.get("gpus", []), answer.get("problem")


def refuse_other(here: Gpu, slug: str) -> None:
    """Raise unless a GPU is the one that a path names.

    Raises:
        UserError: It is another one.
    """
    if here.slug != slug:
        raise UserError(
            f"the cell belongs to {slug}, and this process would use {here.slug} ({here.name}, {here.uuid}); run it "
            "there, or choose the GPU with CUDA_VISIBLE_DEVICES"
        )


def from_json(fields: dict[str, Any]) -> Gpu:
    """A GPU as ``dataclasses.asdict`` and JSON left it."""
    return Gpu(**{**fields, "capability": tuple(fields["capability"])})


class _Driver:
    """CUDA's driver library."""

    def __init__(self) -> None:
        try:
            self._library = ctypes.CDLL(_LIBRARY)
        except OSError as error:
            raise NoGpu(f"no CUDA device on this machine ({error})") from None

    def call(self, name: str, *arguments: Any) -> None:
        """Call a function.

        Raises:
            NoGpu: It failed; in CUDA's words.
        """
        if error := getattr(self._library, name)(*arguments):
            visible_ones = os.environ.get("CUDA_VISIBLE_DEVICES")
            limited = f"; CUDA_VISIBLE_DEVICES={visible_ones!r}" if visible_ones and error == _NO_DEVICE else ""
            raise NoGpu(f"{name}: {self._words(error)}{limited}")

    def _words(self, error: int) -> str:
        words = ctypes.c_char_p()
        self._library.cuGetErrorString(error, ctypes.byref(words))
        return f"{words.value.decode(errors='replace')} (error {error})" if words.value else f"error {error}"

    def uuid(self, name: str, device: ctypes.c_int) -> str:
        """A UUID in the usual form."""
        raw = (ctypes.c_char * 16)()
        self.call(name, raw, device)
        digits = raw.raw.hex()
        return "-".join((digits[:8], digits[8:12], digits[12:16], digits[16:20], digits[20:]))

    def version(self) -> str:
        """The version of CUDA that the driver has."""
        number = ctypes.c_int()
        self.call("cuDriverGetVersion", ctypes.byref(number))
        return f"CUDA {number.value // 1000}.{number.value % 1000 // 10}"


def _driver_version() -> str | None:
    """The driver's own version, of which CUDA says nothing; None where NVML is missing or refuses."""
    try:
        nvml = ctypes.CDLL("libnvidia-ml.so.1")
    except OSError:
        return None
    text = ctypes.create_string_buffer(80)
    if nvml.nvmlInit_v2() or nvml.nvmlSystemGetDriverVersion(text, len(text)):
        return None
    return text.value.decode(errors="replace") or None


def main() -> None:
    """Print every visible GPU, or what is wrong, as JSON."""
    try:
        answer: dict[str, Any] = {"gpus": [dataclasses.asdict(one) for one in every()]}
    except NoGpu as error:
        answer = {"problem": str(error)}
    print(json.dumps(answer))


if __name__ == "__main__":
    main()

"""Which machine this is. Standard library only."""

from __future__ import annotations

import dataclasses
import json
import os
import platform
import re
import subprocess
from collections.abc import Mapping, Set
from pathlib import Path

from ceilings.slugs import gpu_name, slug

PIN = "CEILINGS_HOST"
"""Environment variable that carries the detected host to jobs, so that all of a run agree on the machine."""


@dataclasses.dataclass(frozen=True)
class Gpu:
    """The NVIDIA GPU that a run uses: the first visible one."""

    slug: str
    name: str
    uuid: str
    driver: str
    capability: tuple[int, int]
    memory_bytes: int


@dataclasses.dataclass(frozen=True)
class Host:
    """This machine.

    Attributes:
        cpu_slug: Slug of the processor, such as ``cpu-amd-epyc-9454``.
        cpu_name: The processor as the kernel names it.
        cores: Physical cores that this process may use.
        gpu: The first visible NVIDIA GPU, or None.
        gpu_problem: Why there is none, in one line; None where there is one.
    """

    cpu_slug: str
    cpu_name: str
    cores: int
    gpu: Gpu | None
    gpu_problem: str | None

    def device(self, kind: str) -> str | None:
        """Slug of this machine's device of a kind (``cpu`` or ``cuda``); None if it has none."""
        if kind == "cpu":
            return self.cpu_slug
        return self.gpu.slug if self.gpu else None


def detect(environment: Mapping[str, str] = os.environ) -> Host:
    """This machine, as pinned by the process that planned the run, else as found now."""
    if pinned := environment.get(PIN):
        fields = json.loads(pinned)
        if gpu := fields["gpu"]:
            fields["gpu"] = Gpu(**{**gpu, "capability": tuple(gpu["capability"])})
        return Host(**fields)
    gpu, problem = _first_gpu()
    name = _cpu_name()
    return Host(f"cpu-{slug(name)}", name, _physical_cores(), gpu, problem)


def pin(host: Host) -> None:
    """Hand ``host`` to every job that this process starts."""
    os.environ[PIN] = json.dumps(dataclasses.asdict(host), sort_keys=True)


def lead_path(*folders: Path) -> None:
    """Let every job that this process starts find the programs of ``folders`` first."""
    os.environ["PATH"] = os.pathsep.join((*map(str, folders), os.environ.get("PATH", "")))


def _first_gpu() -> tuple[Gpu | None, str | None]:
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None and visible.strip() in ("", "-1", "none", "NoDevFiles"):
        return None, f"CUDA_VISIBLE_DEVICES={visible!r} hides every CUDA device"
    fields = "name,uuid,driver_version,compute_cap,memory.total"
    command = ["nvidia-smi", f"--query-gpu={fields}", "--format=csv,noheader,nounits"]
    if visible:
        command.append(f"--id={visible.split(',')[0]}")
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=True)
    except FileNotFoundError:
        return None, "no CUDA device on this machine"
    except (OSError, subprocess.SubprocessError) as error:
        return None, f"nvidia-smi found no usable CUDA device ({type(error).__name__})"
    lines = done.stdout.strip().splitlines()
    if not lines:
        return None, "no CUDA device on this machine"
    name, uuid, driver, capability, memory_mib = (field.strip() for field in lines[0].split(","))
    major, minor = (int(part) for part in capability.split("."))
    return Gpu(slug(gpu_name(name)), gpu_name(name), uuid, driver, (major, minor), int(memory_mib) << 20), None


def _cpu_name() -> str:
    try:
        found = re.search(r"^model name\s*:\s*(.+)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    except OSError:
        found = None
    return found.group(1).strip() if found else platform.processor() or platform.machine()


def _physical_cores() -> int:
    """Cores that this process may use, counting each pair of hardware threads once."""
    try:
        usable = os.sched_getaffinity(0)
        siblings = {
            Path(f"/sys/devices/system/cpu/cpu{cpu}/topology/thread_siblings_list").read_text() for cpu in usable
        }
        return len(siblings)
    except (AttributeError, OSError):
        return os.cpu_count() or 1


def int8_saturates(flags: Set[str] | None = None) -> bool:
    """Whether this CPU's products of uint8 and int8 saturate: x86 without VNNI adds two of them in 16 bits.

    Args:
        flags: Of the processor; None reads ``/proc/cpuinfo``. An Arm processor lists none of x86.
    """
    if flags is None:
        try:
            text = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
        except OSError:
            return False
        listed = re.search(r"^flags\s*:(.*)$", text, re.MULTILINE)
        flags = set(listed[1].split()) if listed else set()
    return "sse2" in flags and not flags & {"avx512_vnni", "avx_vnni", "amx_int8"}

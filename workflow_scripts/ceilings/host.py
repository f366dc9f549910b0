"""Which machine this is. Standard library only."""

from __future__ import annotations

import dataclasses
import json
import os
import platform
import re
from collections.abc import Mapping, Set
from pathlib import Path
from typing import Any

from ceilings import gpu as gpus
from ceilings.control_groups import cpu_quota
from ceilings.errors import UserError
from ceilings.gpu import Gpu
from ceilings.slugs import slug

PIN = "CEILINGS_HOST"
"""Environment variable that carries the detected host to jobs, so that all of a run agree on the machine."""

TOPOLOGY = "/sys/devices/system/cpu/cpu{}/topology/thread_siblings_list"


@dataclasses.dataclass(frozen=True)
class Host:
    """This machine.

    Attributes:
        cpu_slug: Slug of the processor, such as ``cpu-amd-epyc-9454``.
        cpu_name: The processor as the kernel names it.
        cores: Physical cores that this process may use; no more than whole cores of its quota, and at least 1.
        gpu: The first visible NVIDIA GPU, or None.
        gpu_problem: Why there is none, in one line; None where there is one.
        cpu_quota: Cores' worth of CPU time that control groups allow; None without a limit.
        int8_saturates: Whether products of uint8 and int8 saturate (:func:`int8_saturates`).
        multiplies_bf16: Whether there are instructions for products of BF16 numbers.
        cards: How many visible GPUs are of the kind of ``gpu``, it among them; None where nobody counted.
    """

    cpu_slug: str
    cpu_name: str
    cores: int
    gpu: Gpu | None
    gpu_problem: str | None
    cpu_quota: float | None = None
    int8_saturates: bool = False
    multiplies_bf16: bool = False
    cards: int | None = None

    def device(self, kind: str) -> str | None:
        """Slug of this machine's device of a kind (``cpu`` or ``cuda``); None if it has none."""
        if kind == "cpu":
            return self.cpu_slug
        return self.gpu.slug if self.gpu else None

    def uuid(self, kind: str) -> str | None:
        """UUID of this machine's GPU for ``cuda``; None for ``cpu``."""
        return self.gpu.uuid if kind == "cuda" and self.gpu else None


def detect(environment: Mapping[str, str] = os.environ) -> Host:
    """This machine, as pinned by the process that planned the run, else as found now."""
    if pinned := environment.get(PIN):
        return from_json(json.loads(pinned))
    visible, problem = _gpus()
    gpu = visible[0] if visible else None
    cards = sum(one.slug == gpu.slug for one in visible) if gpu else 0
    name, model = _cpu()
    cores, quota = len(physical_cores()), cpu_quota()
    usable = cores if quota is None else max(1, min(cores, int(quota)))
    processor = f"cpu-{slug(name)}{model}"
    return Host(processor, name, usable, gpu, problem, quota, int8_saturates(), multiplies_bf16(), cards)


def kind_of(device: str) -> str:
    """Kind of a device by its slug: ``cpu`` or ``cuda``."""
    return "cpu" if device.startswith("cpu-") else "cuda"


def having(device: str, output: Path, kind: str | None = None) -> Host:
    """This machine, for what must be made on one that has ``device``.

    Args:
        device: A slug.
        output: What is made, for the message.
        kind: ``cpu`` or ``cuda`` where only that will do; default: the kind of ``device``.

    Raises:
        UserError: This machine has another one.
    """
    host = detect({})
    kind = kind or kind_of(device)
    if (here := host.device(kind)) != device:
        what = {"cpu": "processor", "cuda": "GPU"}[kind]
        other = f", or ask for the path of this machine's {what}" if here else ""
        raise UserError(
            f"{output} belongs to {device}, but this machine's {what} is {here or 'none'}; run it there{other}"
        )
    return host


def from_json(fields: Mapping[str, Any]) -> Host:
    """A machine as ``dataclasses.asdict`` and JSON left it."""
    gpu = fields["gpu"]
    return Host(**{**fields, "gpu": gpus.from_json(gpu) if gpu else None})


def pin(host: Host) -> None:
    """Hand ``host`` to every job that this process starts."""
    os.environ[PIN] = json.dumps(dataclasses.asdict(host), sort_keys=True)


def lead_path(*folders: Path) -> None:
    """Let every job that this process starts find the programs of ``folders`` first."""
    os.environ["PATH"] = os.pathsep.join((*map(str, folders), os.environ.get("PATH", "")))


def _gpus() -> tuple[list[Gpu], str | None]:
    """Every GPU that is visible, or why none is."""
    chosen = os.environ.get("CUDA_VISIBLE_DEVICES")
    if chosen is not None and chosen.strip() in ("", "-1", "none", "NoDevFiles"):
        return [], f"CUDA_VISIBLE_DEVICES={chosen!r} hides every CUDA device"
    try:
        return gpus.ask_every(), None
    except gpus.NoGpu as error:
        return [], str(error)


def _cpu(text: str | None = None) -> tuple[str, str]:
    """The processor's name, and what tells it from others of that name: ``AMD EPYC`` may be any of them."""
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace") if text is None else text
    except OSError:
        text = ""
    fields: dict[str, list[str]] = {}
    for key, value in re.findall(r"^([^:\n]+?)\s*:[ \t]*(\S.*?)\s*$", text, re.MULTILINE):
        if value not in fields.setdefault(key, []):
            fields[key].append(value)
    if name := fields.get("model name"):
        number = [fields[key][0] for key in ("cpu family", "model") if key in fields]
        return name[0], "" if re.search(r"\d", slug(name[0])) else "".join(f"-{one}" for one in number)
    # Arm: numbers of the vendor and of each kind of core
    parts = [*fields.get("CPU implementer", [])[:1], *sorted(fields.get("CPU part", []))]
    return platform.processor() or platform.machine(), "".join(f"-{part}" for part in parts)


def physical_cores() -> list[tuple[int, ...]]:
    """The processors that this process may use, those of one physical core together."""
    try:
        usable = sorted(os.sched_getaffinity(0))
    except AttributeError:  # a system without affinities
        usable = list(range(os.cpu_count() or 1))
    groups: dict[str, list[int]] = {}
    for one in usable:
        try:
            siblings = Path(TOPOLOGY.format(one)).read_text(encoding="utf-8").strip()
        except OSError:
            siblings = str(one)
        groups.setdefault(siblings, []).append(one)
    return [tuple(group) for group in groups.values()]


def int8_saturates(flags: Set[str] | None = None) -> bool:
    """Whether this CPU's products of uint8 and int8 saturate: x86 without VNNI adds two of them in 16 bits.

    Args:
        flags: Of the processor; None reads ``/proc/cpuinfo``. An Arm processor lists none of x86.
    """
    flags = _flags() if flags is None else flags
    return "sse2" in flags and not flags & {"avx512_vnni", "avx_vnni", "amx_int8"}


def multiplies_bf16(flags: Set[str] | None = None) -> bool:
    """Whether this CPU has instructions for products of BF16 numbers; ``flags`` as of :func:`int8_saturates`."""
    flags = _flags() if flags is None else flags
    return bool(flags & {"avx512_bf16", "amx_bf16", "bf16"})


def _flags() -> Set[str]:
    """The processor's features as the kernel lists them; empty where it does not."""
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return set()
    listed = re.search(r"^(?:flags|Features)\s*:(.*)$", text, re.MULTILINE)
    return set(listed[1].split()) if listed else set()

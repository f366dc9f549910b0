"""Which machine this is and what it can run. Standard library only."""

from __future__ import annotations

import dataclasses
import fnmatch
import json
import os
import platform
import re
import subprocess
from collections.abc import Iterable, Mapping
from pathlib import Path

from ceilings import provenance
from ceilings.engines import libraries
from ceilings.engines.catalogue import BUILDERS, Builder
from ceilings.runtimes.catalogue import MINIMUM_CAPABILITY, Runtime
from ceilings.slugs import gpu_name, slug

TITLES = {"tensorrt10": "TensorRT 10", "tensorrt11": "TensorRT 11", "tensorrt-rtx": "TensorRT for RTX"}

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


@dataclasses.dataclass(frozen=True)
class Availability:
    """Whether a runtime can run here; if not, why and what would help."""

    reason: str | None = None
    remedy: str | None = None

    def __bool__(self) -> bool:
        return self.reason is None


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


def availability(runtime: Runtime, precision: str, host: Host) -> Availability:
    """Whether ``runtime`` can run ``precision`` on ``host``, with the reason and the remedy if not."""
    if runtime.device == "cuda":
        if host.gpu is None:
            return Availability(host.gpu_problem, "run on a machine with an NVIDIA GPU and its driver")
        needed = MINIMUM_CAPABILITY.get(precision, (0, 0))
        if host.gpu.capability < needed:
            return Availability(
                f"{host.gpu.name} has compute capability {_dotted(host.gpu.capability)}; {precision} needs "
                f"{_dotted(needed)}",
                "run on a newer GPU or drop the precision",
            )
        have = _dotted(host.gpu.capability)
        if runtime.capabilities and not any(fnmatch.fnmatch(have, pattern) for pattern in runtime.capabilities):
            return Availability(
                f"{host.gpu.name} has compute capability {have}; {runtime.name} runs on "
                f"{', '.join(runtime.capabilities).replace('*', 'x')} only",
                "run on such a GPU (GeForce RTX and its like), or use the tensorrt runtimes here",
            )
    if runtime.builder and not (missing := _generation(BUILDERS[runtime.builder])):
        return missing
    for package, version in installed(runtime.packages).items():
        if version is None:
            return Availability(f"package {package} is not installed", f"pip install {package}")
        if runtime.device == "cuda" and version.endswith("+cpu"):
            return Availability(f"{package} {version} is a CPU build", f"install a CUDA build of {package}")
    if runtime.library and not libraries.find(runtime.library):
        return Availability(
            f"{runtime.library} is neither where the dynamic linker looks nor in an installed package",
            f"install TensorRT's libraries ({_package_of(runtime.library)}), or name their folder in LD_LIBRARY_PATH",
        )
    return Availability()


def _generation(builder: Builder) -> Availability:
    """Whether a generation of TensorRT is installed: two of them cannot be, in one environment."""
    if builder.installed():
        return Availability()
    others = {name: version for name, version in provenance.versions(builder.distributions).items() if version}
    remedy = f"run in an environment with it: envs/{builder.name}.yaml"
    for name, version in others.items():
        return Availability(f"{name} is {version}; {builder.name} needs {builder.major}.x", remedy)
    return Availability(f"{TITLES[builder.name]} is not installed", remedy)


def _package_of(library: str) -> str:
    """The vendor's package that brings a library."""
    major = library.rsplit(".", 1)[1]
    return "tensorrt-rtx" if "rtx" in library else f"tensorrt-cu13-libs=={major}.*"


def _dotted(capability: tuple[int, int]) -> str:
    return f"{capability[0]}.{capability[1]}"


def installed(packages: Iterable[str]) -> dict[str, str | None]:
    """Version of each package; of ``a|b`` the first one that is installed, else ``a``. None: not installed."""
    found = [provenance.versions(package.split("|")) for package in packages]
    return dict(next((pair for pair in either.items() if pair[1]), next(iter(either.items()))) for either in found)


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

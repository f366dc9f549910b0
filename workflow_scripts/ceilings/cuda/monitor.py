"""What the GPU did while a cell was measured: clocks, power, temperature, throttling, energy, neighbours.

``python -m ceilings.cuda.monitor UUID PERIOD_S PARENT`` samples and prints as long as its parent lives. It is a
separate process: a thread would sometimes hold the interpreter's lock, and each time would be an outlier of the
latencies. Time stamps are ``perf_counter_ns``, one clock for all processes of a Linux system. NVML may refuse any call,
in virtual machines above all: then the field is null and the reason is kept. Nothing here changes a setting.
"""

from __future__ import annotations

import contextlib
import dataclasses
import importlib
import itertools
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Any

import numpy as np

from ceilings import environment, lifetime

PERIOD_S = 0.025
PROCESSES_EVERY = 10
"""So many samples apart the processes on the GPU are listed."""

CLOCK_PLATEAU = 0.02
"""SM clocks whose range is no more than this fraction of the highest lie on a plateau."""

CLOCK_MOVED = 0.05
"""From this range on, a run is flagged."""

LARGEST_ERROR = 0.25
"""Energy that the counter bounds no closer than this is not given. It is refreshed about every 20 to 100 ms, and read
every ``PERIOD_S``: over 0.5 s it bounds what was used within 5 to 25%."""

SETTLING_S = 0.2
"""After so long the counter was refreshed once more, and read."""

THROTTLES = {
    0x4: "SW power cap",
    0x8: "HW slowdown",
    0x10: "sync boost",
    0x20: "SW thermal slowdown",
    0x40: "HW thermal slowdown",
    0x80: "HW power brake",
    0x200: "board limit",
    0x400: "reliability limit",
}
"""Clock event reasons that make a GPU slower than it could be, by NVML's bit. Idle and a chosen clock are none."""

FIELDS = ("sm_mhz", "memory_mhz", "power_w", "temperature_c", "reasons", "utilisation", "energy_j")
SUMMARISED = ("sm_mhz", "memory_mhz", "power_w", "temperature_c", "utilisation")


@dataclasses.dataclass(frozen=True)
class Sample:
    """One reading; a field that NVML refuses is None. ``cost_s`` is what the reading itself took."""

    t_ns: int
    cost_s: float
    sm_mhz: float | None
    memory_mhz: float | None
    power_w: float | None
    temperature_c: float | None
    reasons: int | None
    utilisation: float | None
    energy_j: float | None


class Device:
    """One GPU as NVML sees it.

    Args:
        uuid: As NVML writes it.
        nvml: The module ``pynvml``, or a stand-in.

    Attributes:
        refused: Why a field cannot be read, by field.
    """

    def __init__(self, uuid: str, nvml: Any = None) -> None:
        self.nvml = nvml = nvml or importlib.import_module("pynvml")
        self.refused: dict[str, str] = {}
        nvml.nvmlInit()
        try:
            self.handle = nvml.nvmlDeviceGetHandleByUUID(uuid)
        except TypeError:  # releases of the bindings differ in whether they encode
            self.handle = nvml.nvmlDeviceGetHandleByUUID(uuid.encode())

    def read(self, field: str, call: Callable[[], Any]) -> Any:
        """A reading, or None; a call that is refused once is not tried again."""
        if field in self.refused:
            return None
        try:
            return call()
        except (self.nvml.NVMLError, AttributeError) as error:
            self.refused[field] = str(error) or type(error).__name__
            return None

    def sample(self) -> Sample:
        """Read all fields now."""
        n, h = self.nvml, self.handle
        reasons = (
            getattr(n, "nvmlDeviceGetCurrentClocksEventReasons", None) or n.nvmlDeviceGetCurrentClocksThrottleReasons
        )
        start = time.perf_counter_ns()
        values = {
            "sm_mhz": self.read("sm_mhz", lambda: n.nvmlDeviceGetClockInfo(h, n.NVML_CLOCK_SM)),
            "memory_mhz": self.read("memory_mhz", lambda: n.nvmlDeviceGetClockInfo(h, n.NVML_CLOCK_MEM)),
            "power_w": self.read("power_w", lambda: n.nvmlDeviceGetPowerUsage(h) / 1e3),
            "temperature_c": self.read("temperature_c", lambda: n.nvmlDeviceGetTemperature(h, n.NVML_TEMPERATURE_GPU)),
            "reasons": self.read("reasons", lambda: reasons(h)),
            "utilisation": self.read("utilisation", lambda: n.nvmlDeviceGetUtilizationRates(h).gpu / 100),
            "energy_j": self.read("energy_j", lambda: n.nvmlDeviceGetTotalEnergyConsumption(h) / 1e3),
        }
        end = time.perf_counter_ns()
        return Sample(t_ns=(start + end) // 2, cost_s=(end - start) / 1e9, **values)

    def facts(self) -> dict[str, Any]:
        """What does not change while measuring."""
        n, h = self.nvml, self.handle
        return {
            "name": _text(self.read("name", lambda: n.nvmlDeviceGetName(h))),
            "driver": _text(self.read("driver", n.nvmlSystemGetDriverVersion)),
            "max_sm_mhz": self.read("max_sm_mhz", lambda: n.nvmlDeviceGetMaxClockInfo(h, n.NVML_CLOCK_SM)),
            "power_limit_w": self.read("power_limit_w", lambda: n.nvmlDeviceGetEnforcedPowerLimit(h) / 1e3),
        }

    def processes(self) -> dict[int, int | None] | None:
        """Bytes of device memory by process that computes; a value is None where NVML keeps it back."""
        listed = self.read("processes", lambda: self.nvml.nvmlDeviceGetComputeRunningProcesses(self.handle))
        return None if listed is None else {int(p.pid): p.usedGpuMemory for p in listed}

    def used_bytes(self) -> int | None:
        """Device memory in use, by whoever."""
        memory = self.read("used_bytes", lambda: self.nvml.nvmlDeviceGetMemoryInfo(self.handle))
        return None if memory is None else int(memory.used)


class Monitor:
    """Context that samples in a separate process.

    Attributes:
        samples: What was read, oldest first; :meth:`poll` fetches.
        processes: Every process that computed on the GPU at any of the listings.
        refused: Why a field, or everything, could not be read.
    """

    def __init__(self, uuid: str, period_s: float = PERIOD_S) -> None:
        self.samples: list[Sample] = []
        self.processes: dict[int, int | None] = {}
        self.refused: dict[str, str] = {}
        self._command = [sys.executable, "-m", "ceilings.cuda.monitor", uuid, str(period_s), str(os.getpid())]
        self._rest = b""

    def __enter__(self) -> Monitor:
        self._process = subprocess.Popen(
            self._command,
            env=environment.known(),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,  # an inherited one would outlive a crash of this process and hide it
        )
        assert self._process.stdout is not None
        self._pipe = self._process.stdout.fileno()
        os.set_blocking(self._pipe, False)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self._process.terminate()
        self._process.wait()
        self.poll()
        assert self._process.stdout is not None
        self._process.stdout.close()

    def wait_for_samples(self, count: int = 2, timeout_s: float = 5.0) -> bool:
        """Wait until the sampler runs, so that its start is over before anything is timed."""
        deadline = time.monotonic() + timeout_s
        while len(self.samples) < count and time.monotonic() < deadline and self._process.poll() is None:
            time.sleep(0.01)
            self.poll()
        self.poll()
        return len(self.samples) >= count

    def poll(self) -> None:
        """Fetch what was sampled; never waits. For between two blocks, not within one."""
        with contextlib.suppress(BlockingIOError):
            while chunk := os.read(self._pipe, 1 << 16):
                self._rest += chunk
        *lines, self._rest = self._rest.split(b"\n")
        for line in lines:
            message = json.loads(line)
            if isinstance(message, dict):
                self.refused |= message.get("refused", {})
                self.processes |= {int(pid): used for pid, used in message.get("processes", {}).items()}
            else:
                self.samples.append(Sample(*message))


def between(samples: Sequence[Sample], start_ns: int, end_ns: int) -> list[Sample]:
    """The samples of a span of time."""
    return [sample for sample in samples if start_ns <= sample.t_ns <= end_ns]


def plateau(samples: Sequence[Sample], count: int = 4) -> bool:
    """Whether the last ``count`` SM clocks agree; True where the clock cannot be read, since then nothing can tell."""
    clocks = [sample.sm_mhz for sample in samples[-count:] if sample.sm_mhz is not None]
    if samples and not clocks:
        return True
    return len(clocks) >= count and max(clocks) - min(clocks) <= CLOCK_PLATEAU * max(clocks)


def summarise(samples: Sequence[Sample]) -> dict[str, Any]:
    """Minimum, median and maximum of each field, the share of samples with each throttle reason, and the cost."""
    summary: dict[str, Any] = {"samples": len(samples)}
    for name in SUMMARISED:
        values = [value for sample in samples if (value := getattr(sample, name)) is not None]
        summary[name] = {"min": min(values), "median": float(np.median(values)), "max": max(values)} if values else None
    reasons = [sample.reasons for sample in samples if sample.reasons is not None]
    summary["throttled"] = (
        {
            name: share
            for bit, name in THROTTLES.items()
            if (share := sum(bool(value & bit) for value in reasons) / len(reasons))
        }
        if reasons
        else None
    )
    summary["sample_cost_s"] = float(np.median([sample.cost_s for sample in samples])) if samples else None
    return summary


def energy(samples: Sequence[Sample], start_ns: int, end_ns: int, inferences: int) -> dict[str, Any] | None:
    """Energy over a span, from the cumulative counter, interpolated between the changes of its readings.

    Returns:
        Joules, seconds, mean watts and joules an inference, and ``uncertainty``: by what share of it the true energy
        may differ, since the counter stands still between two refreshes. None where the counter is refused or bounds
        it no closer than ``LARGEST_ERROR``.
    """
    known = [(sample.t_ns, sample.energy_j) for sample in samples if sample.energy_j is not None]
    if inferences < 1 or not known:
        return None
    begun, ended = _reached(known, start_ns), _reached(known, end_ns)
    if begun is None or ended is None:
        return None
    (least_before, before, most_before), (least_after, after, most_after) = begun, ended
    used, seconds = after - before, (end_ns - start_ns) / 1e9
    error = max(most_after - least_before - used, used - (least_after - most_before))
    if used <= 0 or error > LARGEST_ERROR * used:
        return None
    return {
        "joules": used,
        "seconds": seconds,
        "mean_watts": used / seconds,
        "joules_per_inference": used / inferences,
        "inferences": inferences,
        "uncertainty": error / used,
    }


def _reached(known: Sequence[tuple[int, float]], t_ns: int) -> tuple[float, float, float] | None:
    """Joules at a time: at least, by interpolation, and at most; None where nothing bounds them.

    A reading is what was reached at some refresh before it, so it bounds the past from below. The first reading that
    is larger than one at ``t_ns`` or later comes from a refresh after ``t_ns``, so it bounds it from above.
    """
    times, joules = (np.array(each, np.float64) for each in zip(*known, strict=True))
    last, following = np.searchsorted(times, t_ns, "right") - 1, np.searchsorted(times, t_ns)
    if last < 0 or following == len(times):
        return None
    above = np.nonzero(joules[following:] > joules[following])[0]
    if not len(above):
        return None
    changed = np.nonzero(np.diff(joules) > 0)[0] + 1
    refreshed = (times[changed - 1] + times[changed]) / 2  # between a reading and the one before
    least, most = float(joules[last]), float(joules[following + above[0]])
    return least, float(np.clip(np.interp(t_ns, refreshed, joules[changed]), least, most)), most


def flags(summary: dict[str, Any]) -> list[str]:
    """Warnings that belong beside the numbers."""
    flags = [f"throttled: {name} in {share:.0%} of samples" for name, share in (summary["throttled"] or {}).items()]
    clock = summary["sm_mhz"]
    if clock and clock["max"] - clock["min"] > CLOCK_MOVED * clock["max"]:
        flags.append(f"SM clock moved between {clock['min']:.0f} and {clock['max']:.0f} MHz")
    return flags


def neighbours(processes: dict[int, int | None] | None, this: int) -> tuple[dict[int, int | None], str | None]:
    """Processes that compute on the GPU beside this one, and a flag if there are any.

    Where this process is not listed by its number (a container numbers processes anew), one unknown process is taken
    for it.
    """
    if not processes:
        return {}, None
    others = {pid: used for pid, used in processes.items() if pid != this}
    if this not in processes and len(others) == 1:
        return {}, None
    if not others:
        return {}, None
    return others, f"another process uses the GPU: {', '.join(f'pid {pid}' for pid in sorted(others))}"


def _text(value: Any) -> str | None:
    return value.decode() if isinstance(value, bytes) else value


def main() -> None:
    """Sample until whoever reads has gone."""
    uuid, period, parent = sys.argv[1], float(sys.argv[2]), int(sys.argv[3])
    lifetime.die_with(parent)  # NVML may hang
    out = sys.stdout
    reported: set[str] = set()
    try:
        device = Device(uuid)
    except Exception as error:  # whatever is wrong with NVML, the run goes on without it
        out.write(json.dumps({"refused": {"everything": f"{type(error).__name__}: {error}"}}) + "\n")
        return
    with contextlib.suppress(BrokenPipeError, KeyboardInterrupt):
        for number in itertools.count():
            out.write(json.dumps(dataclasses.astuple(device.sample())) + "\n")
            if number % PROCESSES_EVERY == 0 and (processes := device.processes()):
                out.write(json.dumps({"processes": processes}) + "\n")
            if new := {field: why for field, why in device.refused.items() if field not in reported}:
                reported |= set(new)
                out.write(json.dumps({"refused": new}) + "\n")
            out.flush()
            time.sleep(period)


if __name__ == "__main__":
    main()

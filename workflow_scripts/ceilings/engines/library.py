"""The Python bindings of a TensorRT generation, and what they say while they work."""

from __future__ import annotations

import importlib
import time
from types import ModuleType
from typing import Any

from ceilings.engines.catalogue import Builder
from ceilings.errors import UserError

LAYERS = "LayerType:"
"""What marks the one message of a verbose build that lists the layers of the engine."""


def bindings(builder: Builder) -> ModuleType:
    """Import a generation's bindings.

    Raises:
        UserError: They are not installed, of another generation, or their libraries cannot be loaded.
    """
    problem = f"package {builder.distributions[0]} {builder.major}.* is not installed"
    for name in builder.modules:
        try:
            module = importlib.import_module(name)
        except ModuleNotFoundError:
            continue
        except (ImportError, OSError, RuntimeError) as error:
            problem = f"{name} cannot be loaded ({error})"
            continue
        if int(module.__version__.split(".")[0]) == builder.major:
            return module
        problem = f"{name} is version {module.__version__}"
    remedy = f"install {builder.distributions[0]} {builder.major}.* in an environment of its own (envs/)"
    raise UserError(f"{builder.name} cannot build: {problem}; {remedy}")


def make_logger(trt: Any) -> Any:
    """A logger for the builder: keeps errors and warnings, and the list of layers that a verbose build ends with.

    Its attributes: ``errors`` and ``warnings`` (messages, each once), ``layers`` (the list as text, or None).
    """

    class Logger(trt.ILogger):  # type: ignore[misc]
        def __init__(self) -> None:
            trt.ILogger.__init__(self)
            self.errors: list[str] = []
            self.warnings: list[str] = []
            self.layers: str | None = None

        def log(self, severity: Any, message: str) -> None:
            """Called by TensorRT, from any of its threads."""
            if severity in (trt.ILogger.ERROR, trt.ILogger.INTERNAL_ERROR):
                kept = self.errors
            elif severity == trt.ILogger.WARNING:
                kept = self.warnings
            else:
                if LAYERS in message:
                    self.layers = message
                return
            if message not in kept:
                kept.append(message)

    return Logger()


def make_monitor(trt: Any, label: str, quiet_seconds: float = 5.0) -> Any:
    """An IProgressMonitor that prints where a build is, at most once in ``quiet_seconds`` and never sooner."""

    class Monitor(trt.IProgressMonitor):  # type: ignore[misc]
        def __init__(self) -> None:
            trt.IProgressMonitor.__init__(self)
            self.start = self.printed = time.monotonic()
            self.steps: dict[str, int] = {}
            self.parents: dict[str, str | None] = {}

        def phase_start(self, phase_name: str, parent_phase: str | None, num_steps: int) -> None:
            """A phase of ``num_steps`` begins."""
            self.steps[phase_name] = num_steps
            self.parents[phase_name] = parent_phase

        def phase_finish(self, phase_name: str) -> None:
            """A phase ended."""
            self.steps.pop(phase_name, None)

        def step_complete(self, phase_name: str, step: int) -> bool:
            """A step of a phase is done; True lets the build go on."""
            now = time.monotonic()
            if now - self.printed >= quiet_seconds:
                self.printed = now
                path: list[str] = []
                name = self.parents.get(phase_name)
                while name:
                    path, name = [name, *path], self.parents.get(name)
                done = f"{phase_name} {step + 1} of {self.steps.get(phase_name, '?')}"
                print(f"{label}, {now - self.start:.0f} s: {' > '.join([*path, done])}", flush=True)
            return True

    return Monitor()

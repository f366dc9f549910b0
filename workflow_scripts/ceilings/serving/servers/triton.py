"""Triton Inference Server: the binary of nvidia-pytriton with its Python backend, or another that the study names."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ceilings import environment
from ceilings.errors import CellFailure
from ceilings.serving import server_python
from ceilings.serving.servers import metrics
from ceilings.serving.servers.ending import SHM_PREFIX
from ceilings.serving.servers.metrics import Counters
from ceilings.serving.servers.repository import BACKENDS, Served, write
from ceilings.serving.servers.server import StartedServer, Unavailable, get

SHARE = (
    "compute_infer of Triton's Python backend is all that its Python does: joining rows, the runner, reading outputs "
    "and the way between two processes; executor.costs has the parts"
)

EXIT_SECONDS = 5
"""So long Triton waits for requests in flight when it is stopped."""

STUB = "triton_python_backend_stub"

TF32_SWITCH = "NVIDIA_TF32_OVERRIDE"
"""0 forbids TF32 to NVIDIA's libraries: ONNX Runtime's TensorRT provider has no option for it."""


class Triton(StartedServer):
    """A tritonserver of ours.

    Args:
        path: Folder of another Triton (``/opt/tritonserver``), with ``bin`` and ``backends``; None: nvidia-pytriton's.
        backend: ``python``, ``onnxruntime`` or ``tensorrt``.
        engine_cache: Of the onnxruntime backend: where TensorRT's engines are kept.
    """

    kind = "triton"

    def __init__(  # noqa: PLR0917 - a server's options
        self,
        models: Sequence[Served],
        folder: Path,
        cores: Sequence[int] | None = None,
        threads: int = 1,
        path: Path | None = None,
        backend: str = "python",
        engine_cache: Path | None = None,
    ) -> None:
        super().__init__(models, folder, cores, threads)
        assert backend in BACKENDS, backend
        self.backend, self.engine_cache = backend, engine_cache
        self.path = path
        packages = server_python.folder_of("pytriton") or server_python.packages()
        self.home = path or packages / "pytriton/tritonserver"
        self._libraries: list[str] = []
        self._python: Path | None = None

    def prepare(self) -> None:
        if self.path is None and (problem := server_python.problem("pytriton")):
            raise Unavailable(problem)
        if not (self.home / "bin/tritonserver").is_file():
            raise Unavailable(f"no Triton in {self.home}: bin/tritonserver is not there; correct triton.path")
        if self.backend == "python":
            self._prepare_python()
        elif not (self.home / "backends" / self.backend).is_dir():
            raise Unavailable(
                f"the Triton in {self.home} has no {self.backend} backend; name one that has in triton.path"
            )
        if self.backend == "onnxruntime" and len(self._tf32) > 1:
            raise CellFailure(
                "unsupported",
                "a process has one switch of TF32 for TensorRT in ONNX Runtime; serve tf32 by a separate deployment",
            )
        repository = self.folder / "repository"
        repository.mkdir(exist_ok=True)
        for model in self.models:
            write(repository, model, self.backend, self.engine_cache)

    def _prepare_python(self) -> None:
        """Lay a backend with the stub of this Python out, and the Python that it embeds."""
        version = f"{sys.version_info.major}.{sys.version_info.minor}"
        backend = self.home / "backends/python"
        stub = self.home / f"python_backend_stubs/{version}/{STUB}"
        if not stub.is_file():
            stub = backend / STUB
            built_for = _python_of(stub)
            if built_for != version:
                there = sorted(path.name for path in (self.home / "python_backend_stubs").glob("3.*"))
                known = ", ".join(there) or built_for or "none"
                raise Unavailable(
                    f"Triton's Python backend has no stub for Python {version}, only for {known}; run with one of these"
                )
        if (library := server_python.library_folder()) is None:
            raise Unavailable(
                "this Python has no shared library, which Triton's Python backend needs; use one built with it"
            )
        self._python = server_python.make(self.folder)
        target = self.folder / "backends/python"
        target.mkdir(parents=True)
        for path in backend.iterdir():
            if path.name not in ("__pycache__", STUB):
                (target / path.name).symlink_to(path)
        (target / STUB).symlink_to(stub)
        # The stub looks for these relative to where it lay.
        self._libraries = [str(library), *map(str, [self.home.parents[1] / "nvidia_pytriton.libs", self.home / "lib"])]

    def command(self, ports: Mapping[str, int]) -> list[str]:
        backends = self.folder / "backends" if self.backend == "python" else self.home / "backends"
        return [
            str(self.home / "bin/tritonserver"),
            f"--model-repository={self.folder / 'repository'}",
            f"--backend-directory={backends}",
            f"--backend-config=python,shm-region-prefix-name={self.shm_prefix}",
            *(f"--{name}-port={port}" for name, port in ports.items()),
            *(f"--{name}-address=127.0.0.1" for name in ("http", "grpc", "metrics")),
            "--allow-gpu-metrics=false",  # nobody reads them, and what samples the GPU would run beside the loads
            f"--exit-timeout-secs={EXIT_SECONDS}",
            "--exit-on-error=true",
            "--model-control-mode=none",
            # It would start each model's Python once more to ask what its configuration lacks, which is nothing.
            *(["--disable-auto-complete-config"] if self.backend == "python" else []),
        ]

    @property
    def _tf32(self) -> set[bool]:
        """Whether models that TensorRT executes may use TF32."""
        return {model.tf32 for model in self.models if model.by_tensorrt}

    def variables(self) -> dict[str, str]:
        known = environment.executing(self.threads)
        variables = {SHM_PREFIX: self.shm_prefix}
        if self.backend == "onnxruntime" and False in self._tf32:
            variables[TF32_SWITCH] = "0"
        if self._python is not None:
            variables |= {
                "VIRTUAL_ENV": str(self._python.parents[1]),
                "PATH": f"{self._python.parent}:{known.get('PATH', '')}",
                "LD_LIBRARY_PATH": ":".join(filter(None, [*self._libraries, known.get("LD_LIBRARY_PATH", "")])),
            }
        return variables

    def counters(self, model: str) -> Counters:
        return metrics.counters(get(self.metrics_address, "/metrics")[1], model)

    def statistics(self, model: str) -> Mapping[str, Any]:
        """The entry of the statistics extension."""
        return metrics.statistics_entry(json.loads(get(self.addresses["http"], f"/v2/models/{model}/stats")[1]), model)

    def batch_sizes(self, model: str) -> dict[int, int]:
        return metrics.statistics_sizes(self.statistics(model))

    def disagreement(self, model: str) -> str | None:
        """A sentence where its metrics and its statistics differ; asked while no request is in flight."""
        return metrics.disagreement(self.counters(model), metrics.statistics_counters(self.statistics(model)))

    def facts(self) -> dict[str, Any]:
        about = json.loads(get(self.addresses["http"], "/v2")[1])
        return {
            "kind": self.kind,
            "version": about.get("version"),
            "backend": self.backend,
            "extensions": about.get("extensions", []),
            "options": [
                one for one in self.command(dict.fromkeys(("http", "grpc", "metrics"), 0))[1:] if "/" not in one
            ],
            "executor": {model.name: self.executor_facts(model.name) for model in self.models},
            "notes": [SHARE] if self.backend == "python" else [],
        }


def _python_of(stub: Path) -> str | None:
    """The Python that a stub embeds, by the library that it asks for; None where there is no stub."""
    if not stub.is_file():
        return None
    named = re.search(rb"libpython(3\.\d+)[.\w]*\.so", stub.read_bytes())
    return named[1].decode() if named else None

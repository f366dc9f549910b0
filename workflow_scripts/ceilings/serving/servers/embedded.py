"""The server for every machine: MLServer, which speaks KServe's protocol, with the executor of the pipeline."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ceilings.files import write_task
from ceilings.serving import server_python
from ceilings.serving.executor import serves
from ceilings.serving.servers import metrics
from ceilings.serving.servers.metrics import Counters
from ceilings.serving.servers.server import StartedServer, Unavailable, get

NOTES = (
    "tensors that come as bytes are read by the pipeline's own route: MLServer makes an object of each number",
    "requests are joined by the pipeline, by Triton's rules: MLServer counts no time in its queue",
    "a request is timed from its last byte to its answer's first; server, queue and execution share one process",
)
"""What to know of its numbers."""

START = "from ceilings.serving.servers.embedded_server import main; main()"


class Embedded(StartedServer):
    """MLServer in a process of ours."""

    kind = "embedded"

    def prepare(self) -> None:
        if problem := server_python.problem("mlserver"):
            raise Unavailable(problem)
        self._python = server_python.make(self.folder)
        for model in self.models:
            serves(model.task, model.batching)
            content = {
                "task": dict(model.task),
                "batching": model.batching.to_json() if model.batching else None,
                "instances": model.instances,
                "facts": str(self.folder / f"executor-{model.name}"),
            }
            write_task(self._file(model.name), content)

    def _file(self, model: str) -> Path:
        return self.folder / f"{model}.json"

    def command(self, ports: Mapping[str, int]) -> list[str]:
        config = self.folder / "config"
        models = {model.name: str(self._file(model.name)) for model in self.models}
        write_task(config, {"ports": dict(ports), "models": models})
        return [str(self._python), "-c", START, str(config)]

    def counters(self, model: str) -> Counters:
        return metrics.counters(get(self.metrics_address, "/metrics")[1], model)

    def batch_sizes(self, model: str) -> dict[int, int]:
        return metrics.sizes(get(self.metrics_address, "/metrics")[1], model)

    def facts(self) -> dict[str, Any]:
        about = json.loads(get(self.addresses["http"], "/v2")[1])
        return {
            "kind": self.kind,
            "version": about.get("version"),
            "backend": "python",
            "extensions": about.get("extensions", []),
            "options": ["parallel_workers=0", "gzip_enabled=false", "debug=false"],
            "executor": {model.name: self.executor_facts(model.name) for model in self.models},
            "notes": list(NOTES),
        }

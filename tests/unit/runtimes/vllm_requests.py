"""Requests of vLLM's engine as the runner makes them: ``vllm_requests.py FOLDER OPTIONS SHAPE PRECISION OUT``.

Where vLLM runs on a GPU, by the runner itself; else by its engine alone.

It runs in a separate process: vLLM keeps an engine's state in the process. Needs NumPy and vLLM, and nothing else of
the tests.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np

from ceilings.runtimes.vllm_engine import EngineRequests, OfflineEngine
from ceilings.workload import generation
from ceilings.workload.generation import Decoder
from ceilings.workload.shape import Shape
from ceilings.workload.task import TASKS
from ceilings.workload.tensors import TensorSpec
from ceilings.workload.workload import Workload


class Requests(EngineRequests):
    """Without a device."""

    def __init__(self, folder: Path, decoder: Decoder, shape: Shape, options: dict, precision: str) -> None:
        self.shape = shape
        self.engine = OfflineEngine(folder, precision, decoder, shape, options)


def runner_of(folder: Path, decoder: Decoder, shape: Shape, options: dict, precision: str) -> EngineRequests:
    import torch

    if not torch.cuda.is_available():
        return Requests(folder, decoder, shape, options, precision)
    from ceilings.runtimes.vllm_generating import VllmGenerating

    ids = TensorSpec("input_ids", "int64", ("batch", "prompt"), "tokens", 0, decoder.vocabulary - 1)
    outputs = (
        TensorSpec("tokens", "int64", ("batch", "generated")),
        TensorSpec("logits", "float32", ("batch", decoder.vocabulary)),
    )
    workload = Workload(TASKS["text-generation"], (ids,), outputs, "causal_lm", "gpt2", decoder)
    runner = VllmGenerating(folder, precision, workload, shape, 1, options)
    runner.load()
    return runner


def prompts(shape: Shape, vocabulary: int) -> list[np.ndarray]:
    """Three elements of a pool."""
    draw = np.random.default_rng(7)
    return [draw.integers(0, vocabulary, (shape.batch, shape["prompt"])) for _ in range(3)]


def main() -> None:
    folder, options, text, precision, out = sys.argv[1:]
    shape = Shape.parse(text)
    decoder = Decoder.from_json(json.loads(Path(folder, "decoder.json").read_text()))
    runner = runner_of(Path(folder), decoder, shape, json.loads(options), precision)
    slots = [runner.place({"input_ids": ids}) for ids in prompts(shape, decoder.vocabulary)]
    results: dict = {"whole": [], "items": [], "times": [], "answers": []}

    for slot in slots[:2]:  # two in a row, each to its end
        runner.begin(slot)
        runner.prefill()
        tokens = [runner.arrived().tolist()]
        for _ in range(shape["generated"] - 1):
            runner.step()
            tokens.append(runner.arrived().tolist())
        results["whole"].append(tokens)

    runner.begin(slots[2])  # left in the middle, with a step under way where the engine works ahead
    runner.prefill()
    if shape["generated"] > 3:
        runner.step()

    for item in runner.iterations(slots):  # as a timing loop goes through them, the last request left again
        runner.activate(item)
        runner.launch(item)
        results["items"].append(runner.arrived().tolist())
    results["times"] = runner.request(slots[1])
    for slot in slots:
        answer = runner.run(slot)
        results["answers"].append({
            "tokens": answer.tokens.tolist(), "ids": answer.ids.tolist(), "logits": answer.logits.tolist()
        })  # fmt: skip
    results["differing"] = runner.differing
    results["about"] = runner.engine.describe()
    results["cold_start_ns"] = getattr(runner, "cold_start_ns", {})
    results["top"] = generation.TOP
    Path(out).write_text(json.dumps(results))


if __name__ == "__main__":
    main()

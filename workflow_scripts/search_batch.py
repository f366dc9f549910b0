#!/usr/bin/env python3
"""Search the best batch of one cell under a latency limit: few batches, each measured in fresh processes."""

import argparse
import subprocess
import sys
from pathlib import Path
from typing import Any

from ceilings import host as hosts
from ceilings import records, turns
from ceilings.artifacts import refuse_failed
from ceilings.errors import CellFailure, UserError
from ceilings.isolation import last_error
from ceilings.lifetime import temporary_folder, tied
from ceilings.measure.supervisor import supervise
from ceilings.program import json_argument, main
from ceilings.statistics import search_record
from ceilings.statistics.limit_search import Measured, answer, next_batch
from ceilings.workload.batches import shape_of

KEPT = ("latency_ns", "warmup_stable", "stop_reason", "elapsed_ns")
"""What the record holds of a process's closed loop."""


def work(arguments: argparse.Namespace) -> None:
    host = hosts.having(arguments.device, arguments.output)
    names = ("device", "runtime", "model", "precision", "rest")
    spec = arguments.spec
    head = {
        "cell": {name: getattr(arguments, name) for name in names},
        "log": arguments.log,
        "search": spec["search"],
        "protocol": spec["protocol"],
    }
    try:
        refuse_failed(arguments.artifact)
    except CellFailure as failure:
        found = failed(failure.kind, str(failure), [])
    else:
        found = Search(arguments, host.uuid(hosts.kind_of(arguments.device))).run()
    records.write(arguments.output, "best-batch", head | found, indent=None)


class Search:
    """The search of one cell.

    Args:
        arguments: Of the program.
        gpu: UUID of the GPU that executes it; None for the processor.
    """

    def __init__(self, arguments: argparse.Namespace, gpu: str | None) -> None:
        self.arguments = arguments
        self.spec = arguments.spec
        self.limits = arguments.spec["search"]
        self.gpu = gpu
        self.steps: list[dict[str, Any]] = []
        self.measured: list[Measured] = []
        self.provenance: dict[str, Any] | None = None

    def run(self) -> dict[str, Any]:
        """The record's part that comes from measuring."""
        bounds = self.limits["most"], self.limits["multiple"]
        while (batch := next_batch({one.batch: one.verdict for one in self.measured}, *bounds)) is not None:
            self._step(batch, again=False)
            if (first := self.steps[0])["status"] != "ok":
                message = f"at batch {first['batch']}: {first['failure']['message']}"
                return failed(first["failure"]["kind"], message, self.steps) | {"provenance": self.provenance}
        best = answer(self.measured, *bounds).best
        if best is not None:
            self._step(best, again=True)
        return {"status": "ok", "failure": None, "steps": self.steps, "provenance": self.provenance}

    def _step(self, batch: int, *, again: bool) -> None:
        """Measure one batch and say what came of it."""
        runs: list[dict[str, Any]] = []
        step = {"batch": batch, "again": again, "status": "ok", "failure": None, "runs": runs}
        try:
            with temporary_folder() as folder:
                task = self._task(Path(folder), batch)
                with turns.turn(self.gpu):
                    for _ in range(self.limits["processes"]):
                        runs.append(self._process(task))
        except CellFailure as failure:
            step |= {"status": "failed", "failure": {"kind": failure.kind, "message": str(failure)}}
        self.steps.append(step)
        limit = search_record.limit_ms(self.limits, self.steps)
        self.measured.append(search_record.judged(self.limits, step, limit))
        print(in_words(self.measured[-1], step, limit), flush=True)

    def _process(self, task: dict[str, Any]) -> dict[str, Any]:
        """What one fresh process measured.

        Raises:
            CellFailure: It measured nothing, and why.
        """
        measured = supervise(task)
        self.provenance = self.provenance or measured["provenance"]
        if measured["status"] != "ok":
            raise CellFailure(measured["failure"]["kind"], measured["failure"]["message"])
        series = measured["series"]["latency"]
        return {name: series[name] for name in KEPT} | {name: measured[name] for name in ("parity", "memory", "flags")}

    def _task(self, folder: Path, batch: int) -> dict[str, Any]:
        """What a process at a batch is given; its inputs and their reference are made in a folder.

        Raises:
            CellFailure: They cannot be made.
        """
        arguments, shape = self.arguments, shape_of(self.arguments.rest, batch)
        inputs, reference = folder / "inputs.npz", folder / "reference.npz"
        common = ("--weights-dir", arguments.weights_dir, "--shape", shape)
        program("make_inputs", *common, "--inputs", arguments.inputs, "--output", inputs)
        graph = ("--graph", arguments.graph) if arguments.graph else ()
        threads = ("--threads", self.spec["threads"])
        program("compute_reference", *common, *graph, *threads, "--inputs", inputs, "--output", reference)
        try:
            refuse_failed(inputs, reference)
        except CellFailure as failure:
            raise CellFailure(failure.kind, f"no inputs and FP32 reference: {failure}") from None
        of_weights = arguments.artifact.suffix == ".safetensors"
        paths = {
            "artifact": arguments.artifact.parent if of_weights else arguments.artifact,
            "inputs": inputs,
            "reference": reference,
            "workload": arguments.weights_dir / "workload.json",
        }
        cell = {name: getattr(arguments, name) for name in ("device", "runtime", "model", "precision")}
        return {
            "cell": cell | {"shape": str(shape)},
            "spec": self.spec,
            **{name: str(path) for name, path in paths.items()},
        }


def program(name: str, *options: object) -> None:
    """Run another program of this folder, as the rule of its name does.

    Raises:
        UserError: It says what the user can mend.
    """
    command = [sys.executable, str(Path(__file__).with_name(f"{name}.py")), *map(str, options)]
    done = subprocess.run(
        command,
        stdout=subprocess.DEVNULL,  # of files that go with their folder
        stderr=subprocess.PIPE,
        text=True,
        check=False,
        preexec_fn=tied(),
    )
    sys.stderr.write(done.stderr)
    if done.returncode:
        error = last_error(done.stderr)
        if error.startswith("error: "):
            raise UserError(error.removeprefix("error: "))
        raise RuntimeError(f"{name} ended with status {done.returncode}: {error}")


def failed(kind: str, message: str, steps: list[dict[str, Any]]) -> dict[str, Any]:
    """The record's part of a search that measured nothing."""
    return {"status": "failed", "failure": {"kind": kind, "message": message}, "steps": steps}


def in_words(one: Measured, step: dict[str, Any], limit: float) -> str:
    """A line for the log."""
    again = " again" if step["again"] else ""
    if one.latency is None:
        return f"batch {one.batch}{again}: {step['failure']['kind']}: {step['failure']['message']}"
    interval = one.latency
    return (
        f"batch {one.batch}{again}: median {interval.estimate:.4g} ms ({interval.low:.4g} to {interval.high:.4g}): "
        f"{one.verdict} ({limit:.4g} ms)"
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", required=True, help="slug of the device that must run it")
    parser.add_argument("--runtime", required=True)
    parser.add_argument("--model", required=True)
    parser.add_argument("--precision", required=True)
    parser.add_argument("--rest", required=True, help="the shape without its batch, such as s128")
    parser.add_argument(
        "--spec",
        type=json_argument,
        required=True,
        help="runtime, threads, tolerance, protocol, measurements and search",
    )
    parser.add_argument("--artifact", type=Path, required=True, help="the ONNX graph, or model.safetensors")
    parser.add_argument("--weights-dir", type=Path, required=True, help="with workload.json; inputs are made from it")
    parser.add_argument("--graph", type=Path, help="an ONNX file that gives the reference instead of the weights")
    parser.add_argument("--inputs", required=True, help="pool (distinct inputs), seed, lengths; JSON")
    parser.add_argument("--log", help="path of the log, for the record")
    parser.add_argument("--output", type=Path, required=True)
    main(work, parser)

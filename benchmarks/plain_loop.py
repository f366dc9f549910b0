#!/usr/bin/env python3
"""Is the instrument right? Time the same runner, in one process, with a loop of twenty lines and with the instrument.

    python benchmarks/plain_loop.py --runtime torch-cuda-eager --precision fp16 --artifact WEIGHTS_DIR \
        --workload results/models/distilbert/weights/workload.json \
        --inputs results/models/distilbert/inputs/b1-s128.npz --shape b1-s128

``plain_loop`` is the loop, and it knows nothing of this project: a call, a wait, a clock. Building the runner, and the
instrument itself, are the library's. The two take turns, so that a drift falls on both: the difference of each round is
between its instrument and the mean of the plain loops around it.
"""

import argparse
import itertools
import json
import statistics
import sys
import time
from pathlib import Path


def plain_loop(call, wait, seconds):
    """Median time of ``call(); wait()`` in seconds, over at least 100 iterations and ``seconds``."""
    for _ in range(50):
        call()
        wait()
    times = []
    until = time.perf_counter() + seconds
    while len(times) < 100 or time.perf_counter() < until:
        start = time.perf_counter()
        call()
        wait()
        times.append(time.perf_counter() - start)
    return statistics.median(times), len(times)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runtime", required=True)
    parser.add_argument("--precision", default="fp16")
    parser.add_argument("--artifact", type=Path, required=True, help="the ONNX graph, or the folder of the weights")
    parser.add_argument("--inputs", type=Path, required=True)
    parser.add_argument("--shape", required=True, help="of the inputs, such as b1-s128")
    parser.add_argument("--workload", type=Path, required=True, help="workload.json beside the weights")
    parser.add_argument("--seconds", type=float, default=0.5, help="of each turn")
    parser.add_argument("--rounds", type=int, default=8)
    arguments = parser.parse_args()

    sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "workflow_scripts"))
    from ceilings.cuda import device as cuda
    from ceilings.measure import gpu_loop
    from ceilings.measure.setup import make_runner, read_pool
    from ceilings.measure.stopping import Protocol
    from ceilings.runtimes.catalogue import RUNTIMES

    runtime = RUNTIMES[arguments.runtime]
    task = {
        "cell": {"precision": arguments.precision, "shape": arguments.shape},
        "spec": {"module": runtime.module, "threads": 1, "options": runtime.options},
        "artifact": arguments.artifact,
        "inputs": arguments.inputs,
        "workload": arguments.workload,
    }
    runner = make_runner(task)
    runner.load()
    slots = [runner.place(element) for element in read_pool(task)]
    runner.run(slots[0])

    # The wait is the framework's where there is one: not a call of this project.
    if runtime.module == "torch_cuda":
        import torch

        wait = torch.cuda.synchronize
    else:
        from cuda.bindings import runtime as cudart

        wait = cudart.cudaDeviceSynchronize

    def call():
        runner.launch(slots[0])

    protocol = Protocol(
        warmup_seconds=0.05,
        warmup_max_seconds=0.5,
        min_iterations=100,
        min_seconds=arguments.seconds,
        max_seconds=arguments.seconds,
        precision=1e-6,
        saturated_seconds=1,
        concurrency=1,
        time_limit_seconds=600,
    )
    regime = gpu_loop.Regime(runner.activate, runner.launch, slots)
    plain, ours, gpu, enqueue = [plain_loop(call, wait, arguments.seconds)[0] * 1e6], [], [], []
    for _ in range(arguments.rounds):
        series, _ = gpu_loop.closed_loop(regime, runner.stream, protocol)
        ours.append(statistics.median(series["latency_ns"]) / 1e3)
        gpu.append(statistics.median(series["gpu_ns"]) / 1e3)
        enqueue.append(statistics.median(series["enqueue_ns"]) / 1e3)
        plain.append(plain_loop(call, wait, arguments.seconds)[0] * 1e6)
    around = [(before + after) / 2 for before, after in itertools.pairwise(plain)]
    differences = sorted(mine - beside for mine, beside in zip(ours, around, strict=True))
    result = {
        "runtime": arguments.runtime,
        "precision": arguments.precision,
        "shape": arguments.shape,
        "plain_us": statistics.median(plain),
        "instrument_us": statistics.median(ours),
        "difference_us": statistics.median(differences),
        "difference_us_range": [differences[0], differences[-1]],
        "difference_percent": statistics.median(differences) / statistics.median(plain) * 100,
        "drift_percent": (max(plain) / min(plain) - 1) * 100,
        "gpu_us": statistics.median(gpu),
        "enqueue_us": statistics.median(enqueue),
        "rounds": arguments.rounds,
        "call_costs_ns": cuda.call_costs(runner.stream),
    }
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()

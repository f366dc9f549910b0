#!/usr/bin/env python3
"""Are the what-ifs of an explanation right? Real programs, traced, beside the same programs with the change made.

    python3 benchmarks/what_if.py record FOLDER     on a GPU, needs PyTorch only: traces, and times of changed programs
    python3 benchmarks/what_if.py judge FOLDER      anywhere: what an explanation of each trace predicts, what was so
    nsys profile FLAGS python3 benchmarks/what_if.py play FOLDER --program NAME

``record`` runs each program under PyTorch's profiler, and without it. Without it the program and its changes take
turns, so that a drift falls on both. ``judge`` gives the explanation of the recorded run the latency of the unchanged
program, and holds its predictions against the changed ones.
"""

from __future__ import annotations

import argparse
import contextlib
import gzip
import json
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

ROUNDS, SECONDS, RECORDED = 5, 0.3, 30
"""Turns of each variant, the least time of a turn, and the iterations in a trace."""

Step = Callable[[], None]


# ---- the programs: each gives what runs unchanged, and what its changes are called -----------------------------------


def encoder(layers: int, batch: int, width: int = 512, length: int = 128) -> tuple[Any, Any]:
    """A Transformer encoder in FP16 and a batch for it, in pinned memory of the host."""
    import torch

    torch.manual_seed(0)
    layer = torch.nn.TransformerEncoderLayer(width, 8, 4 * width, batch_first=True, activation="gelu")
    model = torch.nn.TransformerEncoder(layer, layers, enable_nested_tensor=False).half().cuda().eval()
    return model, torch.randn(batch, length, width).half().pin_memory()


def captured(work: Callable[[], Any]) -> Step:
    """What replays ``work`` as one CUDA graph."""
    import torch

    stream = torch.cuda.Stream()
    with torch.cuda.stream(stream):
        for _ in range(3):
            work()
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        work()
    return graph.replay


def inference(batch: int, pinned: bool = True) -> dict[str, Step]:
    """Copy the input, run six layers, copy the output and wait."""
    import torch

    model, host = encoder(6, batch)
    host = host if pinned else host.clone()
    device, result = host.cuda(), torch.empty_like(host).pin_memory()
    if not pinned:
        result = torch.empty_like(host)

    def compute() -> Any:
        return model(device)

    with torch.inference_mode():
        output = compute().clone()
        replay = captured(lambda: output.copy_(compute()))

    def step(run: Step | None, copies: bool) -> Step:
        def one() -> None:
            with torch.inference_mode():
                if copies:
                    device.copy_(host, non_blocking=True)
                produced = output if run else compute()
                if run:
                    run()
                if copies:
                    result.copy_(produced, non_blocking=True)
                torch.cuda.synchronize()

        return one

    return {
        "unchanged": step(None, copies=True),
        "graph": step(replay, copies=True),
        "copies": step(None, copies=False),
        "graph and copies": step(replay, copies=False),
    }


def sleeping(count: int, us: float, host_us: float = 0.0) -> dict[str, Step]:
    """Kernels that wait for a stated number of clock cycles, with work of the host between their launches."""
    import torch

    begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    for _ in range(2):
        begin.record()
        torch.cuda._sleep(20_000_000)
        end.record()
        torch.cuda.synchronize()
    cycles = int(us * 1e-3 / begin.elapsed_time(end) * 20_000_000)

    def busy(seconds: float) -> None:
        until = time.perf_counter() + seconds
        while time.perf_counter() < until:
            pass

    def step(each: int, host: float) -> Step:
        def one() -> None:
            for _ in range(count):
                busy(host)
                torch.cuda._sleep(each)
            torch.cuda.synchronize()

        return one

    def graphed() -> Step:
        replay = captured(lambda: [torch.cuda._sleep(cycles) for _ in range(count)])

        def one() -> None:
            replay()
            torch.cuda.synchronize()

        return one

    return {
        "unchanged": step(cycles, host_us * 1e-6),
        "kernels": step(cycles // 2, host_us * 1e-6),
        "graph": graphed(),
    }


def prefetching(copy_megabytes: int) -> dict[str, Step]:
    """The next batch is copied on another stream while this one is computed; the compute stream waits for its event."""
    import torch

    model, host = encoder(6, 32)
    inputs = [host.cuda(), host.cuda()]
    ballast = torch.empty(copy_megabytes << 20, dtype=torch.uint8).pin_memory()
    there = torch.empty_like(ballast, device="cuda")
    copying, copied, turn = torch.cuda.Stream(), [torch.cuda.Event(), torch.cuda.Event()], [0]

    def step(copies: bool) -> Step:
        def one() -> None:
            now, later = turn[0] % 2, (turn[0] + 1) % 2
            turn[0] += 1
            with torch.inference_mode():
                if copies:
                    with torch.cuda.stream(copying):
                        inputs[later].copy_(host, non_blocking=True)
                        there.copy_(ballast, non_blocking=True)
                        copied[later].record()
                    torch.cuda.current_stream().wait_event(copied[now])
                model(inputs[now])
                torch.cuda.synchronize()

        return one

    return {"unchanged": step(copies=True), "copies": step(copies=False)}


def training() -> dict[str, Step]:
    """Forward, backward (launched by another thread), and a step of the optimiser; the host reads the loss."""
    import torch

    torch.manual_seed(0)
    model = torch.nn.Sequential(
        *[torch.nn.Sequential(torch.nn.Linear(512, 512), torch.nn.GELU()) for _ in range(8)]
    ).cuda()
    optimiser = torch.optim.SGD(model.parameters(), lr=1e-4)
    data = torch.randn(64, 512, device="cuda")

    def compute() -> Any:
        optimiser.zero_grad(set_to_none=False)
        loss = model(data).square().mean()
        loss.backward()
        optimiser.step()
        return loss

    compute()
    loss = torch.zeros((), device="cuda")
    replay = captured(lambda: loss.copy_(compute().detach()))

    def eager() -> None:
        compute().item()

    def graphed() -> None:
        replay()
        loss.item()

    return {"unchanged": eager, "graph": graphed}


def reading() -> dict[str, Step]:
    """Every layer's mean is read on the host before the next layer runs."""
    import torch

    model, host = encoder(6, 8)
    device = host.cuda()

    def step(reads: bool) -> Step:
        def one() -> None:
            with torch.inference_mode():
                x = device
                for layer in model.layers:
                    x = layer(x)
                    if reads:
                        x.mean().item()
                torch.cuda.synchronize()

        return one

    return {"unchanged": step(reads=True), "no reads": step(reads=False)}


def generating() -> dict[str, Step]:
    """A prefill and 12 decode steps with a growing cache: what an iteration is has two answers."""
    import torch

    torch.manual_seed(0)
    width, heads, layers = 256, 8, 4
    weights = [torch.randn(width, 4 * width, device="cuda").half() * 0.02 for _ in range(layers)]
    back = [torch.randn(width, width, device="cuda").half() * 0.02 for _ in range(layers)]
    head = torch.randn(width, 1024, device="cuda").half() * 0.02
    embedding = torch.randn(1024, width, device="cuda").half()
    prompt = torch.randint(0, 1024, (1, 64), device="cuda")

    def forward(x: Any, cache: list[Any]) -> Any:
        for number in range(layers):
            q, k, v, gate = (x @ weights[number]).chunk(4, dim=-1)
            q, k, v = (t.view(1, -1, heads, width // heads).transpose(1, 2) for t in (q, k, v))
            if cache[number] is not None:
                k, v = torch.cat([cache[number][0], k], 2), torch.cat([cache[number][1], v], 2)
            cache[number] = (k, v)
            y = torch.nn.functional.scaled_dot_product_attention(q, k, v, is_causal=q.shape[2] > 1)
            y = y.transpose(1, 2).reshape(1, -1, width)
            x = torch.nn.functional.layer_norm(x + (y * torch.nn.functional.silu(gate)) @ back[number], (width,))
        return (x[:, -1] @ head).argmax(-1)

    def one() -> None:
        with torch.inference_mode():
            cache: list[Any] = [None] * layers
            token = forward(embedding[prompt], cache)
            for _ in range(12):
                token.item()
                token = forward(embedding[token].unsqueeze(1), cache)
            token.item()

    return {"unchanged": one}


def two_threads() -> dict[str, Step]:
    """Two threads, each with a model and a stream, begin together; the iteration is over when both are."""
    import torch

    parts = [encoder(3, 8) for _ in range(2)]
    parts = [(model, host.cuda(), torch.cuda.Stream()) for model, host in parts]

    def serve(number: int) -> None:
        model, device, stream = parts[number]
        with torch.inference_mode(), torch.cuda.stream(stream):
            model(device)
            stream.synchronize()

    def one() -> None:
        threads = [threading.Thread(target=serve, args=(number,)) for number in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    return {"unchanged": one}


PROGRAMS: dict[str, Callable[[], dict[str, Step]]] = {
    "encoder-b1": lambda: inference(1),
    "encoder-b64": lambda: inference(64),
    "encoder-b64-pageable": lambda: inference(64, pinned=False),
    "sleep-long": lambda: sleeping(20, 100),
    "sleep-short": lambda: sleeping(100, 2),
    "sleep-host": lambda: sleeping(20, 20, 40),
    "prefetch-hidden": lambda: prefetching(8),
    "prefetch-exposed": lambda: prefetching(256),
    "training": training,
    "reading": reading,
    "generating": generating,
    "two-threads": two_threads,
}


# ---- recording -------------------------------------------------------------------------------------------------------


def turn(step: Step) -> float:
    """Median seconds of an iteration over a turn."""
    times, until = [], time.perf_counter() + SECONDS
    while len(times) < 10 or time.perf_counter() < until:
        begin = time.perf_counter()
        step()
        times.append(time.perf_counter() - begin)
    return statistics.median(times)


@contextlib.contextmanager
def _profiled(path: Path) -> Iterator[None]:
    import torch

    kinds = [torch.profiler.ProfilerActivity.CPU, torch.profiler.ProfilerActivity.CUDA]
    with torch.profiler.profile(activities=kinds) as profiler:
        yield
        torch.cuda.synchronize()
    raw = path.with_suffix(".raw.json")
    profiler.export_chrome_trace(str(raw))
    with gzip.open(path, "wt") as packed:
        packed.write(raw.read_text())
    raw.unlink()


def record(folder: Path, name: str) -> None:
    """Trace a program, and measure it and its changes: ``NAME*.json.gz`` and ``NAME.measured.json``."""
    import torch

    variants = PROGRAMS[name]()
    for step in variants.values():
        for _ in range(20):
            step()
    seconds: dict[str, list[float]] = {variant: [] for variant in variants}
    for _ in range(ROUNDS):
        for variant, step in variants.items():
            seconds[variant].append(turn(step))
    step = variants["unchanged"]
    for _ in range(2):  # the first profile of a process also pays for the profiler's start
        with _profiled(folder / f"{name}.json.gz"):
            for _ in range(RECORDED):
                step()
    with _profiled(folder / f"{name}.marked.json.gz"):
        for number in range(RECORDED):
            with torch.profiler.record_function(f"request {number}"):
                step()
    with _profiled(folder / f"{name}.graph.json.gz"):
        if "graph" in variants:
            for _ in range(RECORDED):
                variants["graph"]()
    facts = {
        "program": name,
        "device": torch.cuda.get_device_name(),
        "torch": torch.__version__,
        "iterations": RECORDED,
        "seconds": seconds,
    }
    (folder / f"{name}.measured.json").write_text(json.dumps(facts, indent=1))
    print(
        name, {variant: f"{statistics.median(values) * 1e3:.3f} ms" for variant, values in seconds.items()}, flush=True
    )


def play(name: str) -> None:
    """Run a program for a profiler outside of this process, with a range round each iteration."""
    import torch

    step = PROGRAMS[name]()["unchanged"]
    for _ in range(20):
        step()
    torch.cuda.synchronize()
    torch.cuda.profiler.start()
    for number in range(RECORDED):
        torch.cuda.nvtx.range_push(f"request {number}")
        step()
        torch.cuda.nvtx.range_pop()
    torch.cuda.profiler.stop()


# ---- judging ---------------------------------------------------------------------------------------------------------


def judge(folder: Path) -> None:
    """Print what an explanation of each trace predicts for each change, beside what was measured."""
    heads = ("program", "iterations", "recorded", "untraced", "host", "change", "predicted", "measured", "off by")
    print("| " + " | ".join(heads) + " |\n" + "|---" * len(heads) + "|")
    for path in sorted(folder.glob("*.measured.json")):
        facts = json.loads(path.read_text())
        for marked in (False, True):
            for cells in judged(folder, facts, marked):
                print("| " + " | ".join(cells) + " |", flush=True)


def judged(folder: Path, facts: dict[str, Any], marked: bool) -> Iterator[tuple[str, ...]]:
    """A row for each change of a program that was measured; nothing where iterations are not those that were timed.

    The latency of the unchanged program, measured without the recorder, is given to the explanation.
    """
    sys.path.insert(0, str(Path(__file__).parents[1] / "workflow_scripts"))
    from ceilings.traces.explained.explain import explain

    name, medians = facts["program"], {key: statistics.median(each) * 1e3 for key, each in facts["seconds"].items()}
    trace = folder / f"{name}{'.marked' if marked else ''}.json.gz"
    record = explain(trace, name, {"range": "request *"} if marked else None, latency=medians["unchanged"])
    made, group = record["iterations"], max(record["groups"], key=lambda one: one["share"])
    as_made_out = f"{made['count']} by {made['by']}"
    plain = explain(trace, name, {"range": "request *"} if marked else None)
    recorded = max(plain["groups"], key=lambda one: one["share"])["length_ns"]["median"] / 1e6
    untraced = record["untraced"]
    host = {"fitted": f"{untraced['host'] or 0:.2f}", "any": "any", "none": "none"}[untraced["how"]]
    first = (name, as_made_out, f"{recorded:.3f}", f"{medians['unchanged']:.3f}", host)
    if made["count"] > 1.1 * facts["iterations"]:
        yield (*first, "none: a part of an iteration each", "", "", "")
        return
    for one in group["what_if"]:
        if one["change"] not in medians:
            continue
        measured = medians[one["change"]]
        spread = [value * 1e3 for value in facts["seconds"][one["change"]]]
        shown = f"{measured:.3f} ({min(spread):.3f} to {max(spread):.3f})"
        if one["ns"] is None:
            yield (*first, one["change"], one["why_not"], shown, "")
        else:
            yield (*first, one["change"], f"{one['ns'] / 1e6:.3f}", shown, f"{one['ns'] / 1e6 / measured - 1:+.0%}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("record", "judge", "play"))
    parser.add_argument("folder", type=Path)
    parser.add_argument(
        "--program", choices=tuple(PROGRAMS), help="run only this one; by default each runs in a fresh process"
    )
    arguments = parser.parse_args()
    arguments.folder.mkdir(parents=True, exist_ok=True)
    if arguments.what == "judge":
        judge(arguments.folder)
        return
    if arguments.what == "play":
        play(arguments.program)
    elif arguments.program:
        record(arguments.folder, arguments.program)
    else:
        command = [sys.executable, __file__, "record", str(arguments.folder), "--program"]
        failed = [name for name in PROGRAMS if subprocess.run([*command, name], check=False).returncode]
        sys.exit(f"failed: {', '.join(failed)}" if failed else 0)


if __name__ == "__main__":
    main()

"""Programs without any mark whose iterations are known: made up from a seed, run by a simple host and device.

Each operation's ``bytes`` holds the number of the iteration that it is of, from 0; -1 for what is of none.
"""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Callable

import numpy as np
from unit.traces.recordings import Maker

from ceilings.traces.capture import DEVICE_TO_HOST, HOST_TO_DEVICE, KERNEL, MEMCPY
from ceilings.traces.explained.iterations import Iterations
from ceilings.traces.recording import Recording


class Machine:
    """A host thread and a stream: calls take their time, work runs in order."""

    def __init__(self, draw: random.Random) -> None:
        self.draw, self.maker = draw, Maker()
        self.now, self.done = 0.0, 0.0
        self.think, self.length = draw.choice([2.0, 5.0, 20.0]), draw.choice([1.0, 4.0, 15.0])

    def kernel(self, name: str, stretch: float = 1.0) -> None:
        """A launch of one kernel."""
        call = self._call("cudaLaunchKernel")
        self._run(call, KERNEL, name, stretch)

    def graph(self, names: list[str]) -> None:
        """A launch of a CUDA graph."""
        call = self._call("cudaGraphLaunch")
        for name in names:
            self._run(call, KERNEL, name)

    def copy(self, kind: int) -> None:
        """A copy from the host, or to it, which blocks."""
        call = self._call("cudaMemcpyAsync")
        self._run(call, MEMCPY, copy=kind)

    def wait(self) -> None:
        """Until the device is done."""
        end = max(self.now + 2, self.done + 3)
        self.maker.call(self.now, end, "cudaStreamSynchronize")
        self.now = end + 0.5

    def pause(self, length: float) -> None:
        """The host does something else."""
        self.now += length * self.draw.uniform(0.8, 1.2)

    def _call(self, name: str) -> int:
        self.now += self.think * self.draw.uniform(0.5, 1.5)
        call = self.maker.call(self.now, self.now + 2, name)
        self.now += 2
        return call

    def _run(self, call: int, kind: int, name: str = "", stretch: float = 1.0, copy: int = 0) -> None:
        begin = max(self.now + 1, self.done + 0.5)
        self.done = begin + self.length * stretch * self.draw.uniform(0.8, 1.2)
        self.maker.operation(begin, self.done, call, kind, name=name, copy=copy)


def _names(draw: random.Random, prefix: str, low: int, high: int) -> list[str]:
    """Kernels of a part, some of them several times, some that every part has."""
    common = [f"common_{number}" for number in range(4)]
    own = [f"{prefix}_{number}" for number in range(high)]
    return [draw.choice(common) if draw.random() < 0.4 else draw.choice(own) for _ in range(draw.randint(low, high))]


class Program:
    """What a program does in an iteration, and how it ends one."""

    def __init__(self, draw: random.Random) -> None:
        self.draw, self.machine = draw, Machine(draw)
        self.embed, self.layer, self.head = (_names(draw, "embed", 1, 6), _names(draw, "layer", 6, 16), [])
        self.head = [*_names(draw, "head", 1, 5), "head_last"]
        self.tunes, self.compiling = False, 0.0  # in an iteration of the warm-up
        self.layers = draw.choice([2, 4, 6, 12, 24])
        self.upload, self.download, self.waits = draw.random() < 0.7, draw.random() < 0.5, draw.random() < 0.8
        if not (self.upload or self.waits):
            self.waits = True

    def run(self, *names: list[str], stretch: float = 1.0) -> None:
        """Kernels, one after the other."""
        for part in names:
            for name in part:
                self.machine.kernel(name, stretch)
            self.machine.pause(self.compiling)
            self.compiling = 0

    def begin(self) -> None:
        """The inputs."""
        self.machine.pause(self.draw.choice([10, 50]))
        if self.upload:
            self.machine.copy(HOST_TO_DEVICE)
        if self.tunes:
            self.machine.kernel(self.embed[0])
            for name in self.layer:
                self.machine.pause(300)
                self.run([f"{name}_tuning{variant}" for variant in range(3)])

    def finish(self) -> None:
        """The result."""
        if self.download:
            self.machine.copy(DEVICE_TO_HOST)
        if self.waits:
            self.machine.wait()

    def encoder(self, number: int) -> None:
        """Equal layers between an embedding and a head."""
        self.begin()
        self.run(self.embed, *[self.layer] * self.layers, self.head)
        self.finish()

    def logging(self, number: int) -> None:
        """The same, and something is logged every tenth time."""
        self.begin()
        self.run(self.embed, *[self.layer] * self.layers, self.head)
        if number % 10 == 3:
            self.run(["log_sum", "log_scale"])
            self.machine.copy(DEVICE_TO_HOST)
        self.finish()

    def training(self, number: int) -> None:
        """Forward, backward, an optimiser; the host waits for nothing, or for the loss every fifth time."""
        self.upload = True
        self.begin()
        backward = [name + "_backward" for name in reversed(self.layer)]
        self.run(self.embed, *[self.layer] * self.layers, self.head, *[backward] * self.layers)
        self.run(["optimizer"] * self.draw_once("optimizer", 3, 30))
        if self.draw_once("loss", 0, 1) and number % 5 == 0:
            self.machine.copy(DEVICE_TO_HOST)
            self.machine.wait()

    def hybrid(self, number: int) -> None:
        """Every fourth layer is of another kind."""
        other = _names(random.Random(len(self.layer)), "global", 6, 16)
        self.begin()
        self.run(self.embed, *[other if k % 4 == 3 else self.layer for k in range(self.layers)], self.head)
        self.finish()

    def layers_only(self, number: int) -> None:
        """Equal layers and nothing else but what the host does."""
        self.begin()
        self.run(*[self.layer] * self.layers)
        self.finish()

    def routed(self, number: int) -> None:
        """Each layer waits for a number, as a mixture of experts may."""
        self.begin()
        self.run(self.embed)
        for _ in range(self.layers):
            self.run(self.layer)
            self.machine.copy(DEVICE_TO_HOST)
            self.machine.wait()
        self.run(self.head)
        self.finish()

    def generation(self, number: int) -> None:
        """A prefill, then decode steps, each of which waits for its token."""
        self.download, self.waits = True, True
        prefill = number % self.draw_once("tokens", 5, 40) == 0
        if prefill:
            self.machine.pause(200)
            self.machine.copy(HOST_TO_DEVICE)
        layer = [name + "_prefill" for name in self.layer] if prefill and self.draw_once("other", 0, 1) else self.layer
        self.run(self.embed, *[layer] * self.layers, self.head, stretch=6 if prefill else 1 + number * 1e-3)
        self.finish()

    def graphs(self, number: int) -> None:
        """One CUDA graph, of one of two sizes."""
        self.begin()
        size = number % 3 == 0 if self.draw_once("sizes", 0, 1) else False
        every = [*self.embed, *self.layer * self.layers, *self.head]
        self.machine.graph([name + "_large" for name in every] if size else every)
        self.finish()

    def piecewise(self, number: int) -> None:
        """A CUDA graph a layer, attention between, sampling at the end."""
        self.download, self.waits = True, True
        self.begin()
        self.run(self.embed)
        for _ in range(self.layers):
            self.machine.graph(self.layer)
            self.run(["attention", "attention_reduce"])
        self.run(self.head)
        self.finish()

    def shapes(self, number: int) -> None:
        """Shapes vary, and with them the kernels' tiles."""
        tile = self.draw.choice([64, 128, 256])
        self.begin()
        self.run(self.embed, *[[f"{name}_tile{tile}" for name in self.layer]] * self.layers, self.head)
        self.finish()

    def small(self, number: int) -> None:
        """A model without layers."""
        self.begin()
        self.run(self.embed, self.layer, self.head)
        self.finish()

    def unmarked(self, number: int) -> None:
        """The host neither waits nor copies; an embedding and a head are all that tells layers from iterations."""
        self.upload = self.download = self.waits = False
        self.begin()
        self.run(self.embed, *[self.layer] * self.layers, self.head)

    def twins(self, number: int) -> None:
        """Two models after each other, each of which is waited for."""
        self.waits = True
        self.begin()
        self.run(self.embed, *[self.layer] * self.layers, self.head)
        self.finish()
        self.run(["second_" + name for name in self.layer] * max(self.layers // 2, 1))
        self.finish()

    def accumulated(self, number: int) -> None:
        """Four small batches for each step of the optimiser."""
        self.upload, self.waits, self.download = True, False, False
        backward = [name + "_backward" for name in reversed(self.layer)]
        for _ in range(4):
            self.begin()
            self.run(self.embed, *[self.layer] * self.layers, self.head, *[backward] * self.layers)
        self.run(["optimizer"] * 40 + ["clip"] * 20)

    def replayed(self, number: int) -> None:
        """The same CUDA graph again and again; the host waits for nothing."""
        self.machine.pause(10)
        self.machine.graph([*self.embed, *self.layer * self.layers, *self.head])

    def once(self, number: int) -> None:
        """A single iteration, whose layers are none."""
        self.begin()
        self.run(self.embed, *[self.layer] * self.layers, self.head)
        self.finish()

    def served(self, number: int) -> None:
        """Requests to one of two models, in any order."""
        self._request(self.draw.random() < 0.5)

    def alternating(self, number: int) -> None:
        """Requests to two models in turn."""
        self._request(number % 2 == 0)

    def _request(self, first: bool) -> None:
        self.upload = self.waits = True
        self.begin()
        other = ["second_" + name for name in self.layer]
        self.run(self.embed, *[self.layer if first else other] * self.layers, self.head if first else ["pool"])
        self.finish()

    def depths(self, number: int) -> None:
        """Each request goes through as many layers as it needs."""
        self.upload = self.waits = True
        self.begin()
        self.run(self.embed, *[self.layer] * self.draw.choice([4, 6, 8]), self.head)
        self.finish()

    def losses(self, number: int) -> None:
        """Four small batches for each step of the optimiser; the loss of each is read."""
        self.upload = self.download = self.waits = True
        backward = [name + "_backward" for name in reversed(self.layer)]
        for _ in range(4):
            self.begin()
            self.run(self.embed, *[self.layer] * self.layers, self.head, *[backward] * self.layers)
            self.finish()
        self.run(["optimizer"] * 40 + ["clip"] * 20)
        self.finish()

    def draw_once(self, what: str, low: int, high: int) -> int:
        """A number that stays the same for the program."""
        if not hasattr(self, f"_{what}"):
            setattr(self, f"_{what}", self.draw.randint(low, high))
        return int(getattr(self, f"_{what}"))


USUAL = ("encoder", "logging", "training", "generation", "graphs", "piecewise", "shapes", "small", "replayed", "once")
SERVERS = ("served", "alternating", "depths", "losses")
ADVERSARIAL = ("hybrid", "layers_only", "routed", "unmarked", "twins", "accumulated")


def program(kind: str, seed: int) -> tuple[Recording, tuple[int, int]]:
    """A recording; then the number of its first whole iteration after warm-up, and that after its last one.

    Some begin with warm-up (tuning, slow first ones), some within an iteration, some end within one.
    """
    draw = random.Random(f"{kind} {seed}")
    made = Program(draw)
    machine, maker = made.machine, made.machine.maker
    one: Callable[[int], None] = getattr(made, kind)
    count, warm = draw.choice([4, 6, 11, 30]), draw.choice([0, 0, 1, 3])
    if kind == "generation":
        count = made.draw_once("tokens", 5, 40) * draw.randint(1, 4)
        warm = 0
    if kind == "once":
        count, warm = 1, 0
    if draw.random() < 0.3:
        maker.label = -1  # what came before is recorded too
        made.run(_names(draw, "load", 3, 40))
        machine.wait()
        machine.pause(500)
    cut_begin, cut_end = draw.random() < 0.25 and not warm and count > 1, draw.random() < 0.25 and count > 1
    for number in range(warm + count):
        maker.label = number
        made.tunes, made.compiling = number == 0 < warm, 30_000.0 if number < warm else 0.0
        one(number)
    whole = (warm, warm + count)
    recording = maker.recording()
    if cut_begin or cut_end:
        recording, whole = _shortened(recording, draw, whole, cut_begin, cut_end)
    return recording, whole


def _shortened(
    recording: Recording, draw: random.Random, whole: tuple[int, int], cut_begin: bool, cut_end: bool
) -> tuple[Recording, tuple[int, int]]:
    """The recording begun, or ended, within an iteration."""
    first, last = whole
    calls, work = recording.calls, recording.work
    begin, end = 0, len(calls.start)
    if cut_begin:
        mine = np.unique(work.call[work.bytes == first])
        begin = int(mine[int(len(mine) * draw.uniform(0.2, 0.8))]) if len(mine) > 3 else 0
        first += len(mine) > 3
    if cut_end:
        mine = np.unique(work.call[work.bytes == last - 1])
        if len(mine) > 3:
            end = int(mine[int(len(mine) * draw.uniform(0.2, 0.8))])
            last -= 1
    kept = (work.call >= begin) & (work.call < end)
    known = [field.name for field in dataclasses.fields(work) if getattr(work, field.name) is not None]
    columns = {name: getattr(work, name)[kept] for name in known}
    columns["call"] = columns["call"] - begin
    of_calls = {field.name: getattr(calls, field.name)[begin:end] for field in dataclasses.fields(calls)}
    shortened = dataclasses.replace(recording, work=type(work)(**columns), calls=type(calls)(**of_calls))
    return shortened, (first, last)


def verdict(recording: Recording, whole: tuple[int, int], chosen: Iterations) -> str:
    """How iterations that were made out compare with the true ones.

    ``right``: every true one is there, with exactly its kernels. ``nearly``: some at the ends or with other work are
    not. ``moved``: as many, but from another place within an iteration to the same of the next. ``wrong``: others.
    ``none``: none were made out.
    """
    if chosen.by == "whole":
        return "right" if whole[1] - whole[0] == 1 else "none"
    true, kernels = recording.work.bytes, recording.work.kind == KERNEL
    size = np.bincount(true[kernels & (true >= 0)], minlength=whole[1])
    exact, sizes = set(), np.bincount(chosen.of_work[kernels & (chosen.of_work >= 0)], minlength=len(chosen))
    for number in range(len(chosen)):
        labels = np.unique(true[kernels & (chosen.of_work == number)])
        if len(labels) == 1 and labels[0] >= 0 and sizes[number] == size[labels[0]]:
            exact.add(int(labels[0]))
    count = whole[1] - whole[0]
    missed = count - len(exact & set(range(*whole)))
    spare = len(chosen) - len(exact)
    if missed == 0 and spare == 0:
        return "right"
    if missed <= max(1, 0.1 * count) and spare <= max(1, 0.1 * count):
        return "nearly"
    usual = np.median(size[whole[0] : whole[1]])
    if abs(len(chosen) - count) <= max(1, 0.1 * count) and abs(np.median(sizes) - usual) <= 0.02 * usual:
        return "moved"
    return "wrong"

"""The three changes to try first: what the replays and the counts of an iteration speak for, with their reasons."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

from ceilings.taxonomy import COMMUNICATION, KERNEL_CLASSES

MOST = 3
WORTH = 0.02
"""A lever whose replay gains less than this share of the iteration is none."""

SMALL_KERNEL_NS = 5_000
"""A kernel that is shorter does little more than start and end."""

MANY_KERNELS = 50
DOMINATES = 0.4
"""A class of kernels with this share of the critical path decides how long it is."""

HIDDEN = 0.8
"""Copies and communication of which this part runs beside kernels are hidden."""


@dataclasses.dataclass(frozen=True)
class Evidence:
    """Medians of a group of iterations.

    Attributes:
        length: In ns.
        shares: Of the critical path, by RECORDING_SHARES.
        gains: Change to the share of the iteration that goes with it; None where no replay says it.
        counts: Of an iteration.
        classes: Time on the critical path by class of kernels, in ns.
        calls: Names of the waiting calls, those that take longest first.
        transfers, communication: Of all devices in ns, and what of it is hidden beside kernels.
        kernel_ns: Mean length of a kernel.
        loads, allocations: Share of the iteration that they take of the critical path.
        sometimes: Kernels that occur in some iterations only, with their time in ns of an iteration.
        repeats: Whether it is an iteration of a loop; else host code may be start-up.
        graphs: How many graphs submit all work if each takes what is between two waits.
        set_up: Share of the iteration in which a thread of the path sets up libraries and loads code.
        apart: Whether copies between host and device have streams without kernels.
        pageable: Copies from or to pageable memory an iteration, and the share of it that they take of the path.
        operators: What the host does on the path, by name with its share of the iteration; the longest first.
        kernels: Kernels by name with their time on the path in ns; the longest first.
    """

    length: float
    shares: Mapping[str, float]
    gains: Mapping[str, float | None]
    counts: Mapping[str, float]
    classes: Mapping[str, float]
    calls: Sequence[str]
    transfers: tuple[float, float]
    communication: tuple[float, float]
    kernel_ns: float | None
    loads: float
    allocations: float
    sometimes: Sequence[tuple[str, float]]
    repeats: bool = True
    graphs: float = 1.0
    set_up: float = 0.0
    apart: bool = False
    pageable: tuple[float, float] = (0.0, 0.0)
    operators: Sequence[tuple[str, float]] = ()
    kernels: Sequence[tuple[str, float]] = ()


@dataclasses.dataclass(frozen=True)
class Lever:
    """A change to try; ``gain``: the share of the iteration that goes at most, None where nobody knows."""

    lever: str
    why: str
    gain: float | None


def levers(seen: Evidence) -> list[Lever]:
    """The best ones, those with the largest gain first; none where the device did nothing."""
    if not any(seen.counts[kind] for kind in ("kernels", "copies", "fills", "graphs as a whole")):
        return []
    rules = (
        *(_start_up, _setting_up, _host, _loading, _waiting, _allocating, _pageable, _copies, _communication),
        *(_kernels, _fusion, _sometimes),
    )
    found = [lever for rule in rules if (lever := rule(seen)) and (lever.gain is None or lever.gain >= WORTH)]
    return sorted(found, key=lambda lever: -(lever.gain or 0.0))[:MOST]


def _named(seen: Evidence) -> str:
    """The host's largest operators, for a sentence."""
    named = [f"{name[:60]} {share:.0%}" for name, share in seen.operators if share >= WORTH]
    return f"; most of it in {', '.join(named)}" if named else ""


def _start_up(seen: Evidence) -> Lever | None:
    orchestration = seen.shares["host"] + seen.shares["launch"]
    if seen.repeats or orchestration < DOMINATES:
        return None
    why = f"nothing repeats in this recording, so its host time ({orchestration:.0%} of the critical path) may be "
    why += "start-up"
    why += _named(seen)
    return Lever(
        "record iterations that repeat: warm up first, and mark each (record_function, NVTX, profiler steps)", why, None
    )


def _setting_up(seen: Evidence) -> Lever | None:
    if not seen.repeats or seen.set_up < WORTH:
        return None
    why = f"threads set up libraries or load code for {seen.set_up:.0%} of the iteration, in each iteration anew"
    return Lever(
        "keep threads and handles: a pool of threads that live on, libraries set up once before the loop",
        f"{why}: cuBLAS and cuDNN have a handle for each thread",
        min(seen.set_up, 1.0),
    )


def _host(seen: Evidence) -> Lever | None:
    orchestration = seen.shares["host"] + seen.shares["launch"] - seen.loads - seen.allocations - seen.set_up
    launches, graphs = seen.counts["launches"], seen.counts["graphs"]
    if not seen.repeats or orchestration < WORTH or launches < 2:
        return None
    why = f"host code and launches are {orchestration:.0%} of the critical path{_named(seen)}; "
    why += f"{launches:,.0f} launches an iteration"
    why += f", {graphs:,.0f} of them of graphs" if graphs else ""
    gain, least = seen.gains.get("graph"), seen.loads + seen.allocations + seen.set_up
    if gain is not None:
        # A graph captures launches: loading, allocating and setting up stay.
        gain = min(gain, max(gain - least, 0.0))
        one = (
            "one launch for all work" if seen.graphs < 2 else f"{seen.graphs:,.0f} graphs, one between each two waits,"
        )
        why += f"; {one} would leave {1 - gain:.0%} of the iteration"
    if seen.counts["allocating calls"]:
        why += (
            f"; {seen.counts['allocating calls']:,.0f} calls that allocate or free memory must leave the captured part"
        )
    several = "several CUDA graphs, one between each two waits" if seen.graphs >= 2 else "a CUDA graph"
    return Lever(f"capture {several} (in PyTorch: torch.compile with mode reduce-overhead)", why, gain)


def _loading(seen: Evidence) -> Lever | None:
    if seen.loads < WORTH:
        return None
    why = f"the program waits for its data loader for {seen.loads:.0%} of the critical path"
    return Lever("load data ahead: more workers, prefetching, pinned memory", why, min(seen.loads, 1.0))


def _waiting(seen: Evidence) -> Lever | None:
    blocking, waits = seen.counts["blocking copies"], seen.counts["waiting calls"]
    if waits + blocking < 2 or not seen.repeats:
        return None
    if seen.pageable[0] and waits < 2:  # the copies wait for pageable memory: that is another lever
        return None
    gain = seen.gains.get("waits")
    if gain is None and seen.shares["sync"] < WORTH:
        return None
    named = f" ({', '.join(seen.calls[:2])})" if seen.calls else ""
    why = f"{waits:,.0f} waits{named}"
    why += f" and {blocking:,.0f} copies that block" if blocking else ""
    why += " an iteration stop the host from running ahead"
    return Lever(
        "remove waits: no .item(), .cpu() or print of a tensor in the loop; pinned memory and non_blocking copies",
        why,
        gain,
    )


def _allocating(seen: Evidence) -> Lever | None:
    if not seen.repeats or seen.counts["allocating calls"] < 1 or seen.allocations < WORTH:
        return None
    why = f"{seen.counts['allocating calls']:,.0f} calls an iteration allocate or free memory of the device: "
    why += f"{seen.allocations:.0%} of the critical path"
    return Lever("allocate once: reuse buffers, or a caching or stream-ordered allocator", why, seen.allocations)


def _pageable(seen: Evidence) -> Lever | None:
    count, share = seen.pageable
    if not count or share < WORTH:
        return None
    why = f"{count:,.0f} copies an iteration use pageable memory of the host and take {share:.0%} of the critical path"
    why += ": such a copy goes through a buffer, is slower than the link, and its call waits"
    gain = seen.gains.get("copies")
    return Lever(
        "pin the host's memory (pin_memory, cudaHostAlloc) and copy without blocking",
        why,
        share if gain is None else min(share, gain),
    )


def _copies(seen: Evidence) -> Lever | None:
    gain, (total, hidden) = seen.gains.get("copies"), seen.transfers
    if not total or hidden > HIDDEN * total or (gain is None and seen.shares["transfer"] < WORTH):
        return None
    if seen.pageable[1] >= WORTH:  # what is pageable cannot overlap: to pin it comes first
        return None
    share = total / seen.length
    why = f"copies between host and device take {total / 1e3:,.0f} us, {hidden / total:.0%} of it beside kernels"
    # Beside everything else, they take as long as they take.
    overlapped = None if gain is None else min(gain, max(1 - share, 0.0))
    if gain is not None and overlapped is not None and (seen.apart or overlapped < gain / 2):
        where = "on streams of their own already" if seen.apart else "more than all else"
        return Lever(
            "copy fewer bytes: smaller types, keep data on the device, compute or decode it there; or a faster link",
            f"{why}, {share:.0%} of the iteration, {where}: overlap cannot shorten them",
            gain,
        )
    return Lever(
        "overlap copies: pinned memory, a stream of their own, the next input while this one computes", why, overlapped
    )


def _communication(seen: Evidence) -> Lever | None:
    gain, (total, hidden) = seen.gains.get("communication"), seen.communication
    if not total or hidden > HIDDEN * total or (gain is None and seen.shares["communication"] < WORTH):
        return None
    why = f"communication takes {total / 1e3:,.0f} us an iteration, {hidden / total:.0%} of it beside other kernels"
    return Lever(
        "overlap communication with compute: smaller buckets earlier, another parallelism, faster links", why, gain
    )


ADVICE = {
    "gemm": "faster matrix products: a lower precision (FP16, BF16, FP8, INT8), larger batches, tuned libraries",
    "attention": "a faster attention kernel: FlashAttention 3, a lower precision, a smaller cache of keys and values",
    "normalization": "fuse normalisation and softmax: fused attention, torch.compile, a fused kernel",
    "elementwise": "fuse elementwise kernels: torch.compile, TensorRT, a fused optimiser",
    "copy": "avoid copies and layout changes on the device: channels-last throughout, fewer contiguous() and cat()",
    "gather": "faster lookups: smaller tables, sorted or cached indices",
}
"""What to do about a class of kernels that decides."""


def _kernels(seen: Evidence) -> Lever | None:
    """A class that dominates the kernels of the path and has advice; else a kernel that does; else a class without."""
    gain = seen.gains.get("kernels")
    on_path = {kind: ns for kind, ns in seen.classes.items() if kind in KERNEL_CLASSES and ns > 0}
    on_path.pop(COMMUNICATION, None)
    if not on_path or (gain is not None and gain < WORTH):
        return None
    least = max(WORTH * seen.length, DOMINATES * sum(on_path.values()))
    largest = max(on_path, key=on_path.__getitem__)
    advised = max((kind for kind in on_path if kind in ADVICE), key=on_path.__getitem__, default=None)
    name, ns = next(iter(seen.kernels), ("", 0.0))
    alone = f"{name[:80]} is {ns / seen.length:.0%} of the critical path"
    if advised and on_path[advised] >= least:
        lever, ns_of_lever = ADVICE[advised], on_path[advised]
        why = f"{advised} kernels are {on_path[advised] / seen.length:.0%} of the critical path"
        why += f", {name[:80]} alone {ns / seen.length:.0%}" if ns >= least else ""
    elif ns >= least:
        lever, ns_of_lever, why = f"make {name[:80]} faster", ns, alone
    elif on_path[largest] >= least:
        lever, ns_of_lever = f"make the kernels of class {largest} faster, the longest first", on_path[largest]
        why = f"they are {on_path[largest] / seen.length:.0%} of the critical path; {alone}"
    else:
        return None
    half = ns_of_lever / seen.length / 2
    return Lever(lever, f"{why}; twice as fast would save half of that", half if gain is None else min(half, gain))


def _fusion(seen: Evidence) -> Lever | None:
    kernels, gain = seen.counts["kernels"], seen.gains.get("kernels")
    if kernels < MANY_KERNELS or seen.kernel_ns is None or seen.kernel_ns > SMALL_KERNEL_NS:
        return None
    if seen.shares["kernel"] + seen.shares["launch"] < 0.2:
        return None
    why = f"{kernels:,.0f} kernels an iteration take {seen.kernel_ns / 1e3:.2g} us each: starting them costs as much"
    # Where the host decides, fewer kernels are fewer launches, and how many fewer nobody knows.
    best = gain if gain is not None and gain >= WORTH else None
    return Lever("fuse small kernels: torch.compile, TensorRT, ONNX Runtime's fusions", why, best)


def _sometimes(seen: Evidence) -> Lever | None:
    if not seen.sometimes:
        return None
    name, ns = seen.sometimes[0]
    share = ns / seen.length
    why = f"{len(seen.sometimes)} kernels run in some iterations only; {name[:80]} takes {share:.1%} of the time"
    return Lever("find what differs between iterations: autotuning, logging, changing shapes", why, min(share, 1.0))

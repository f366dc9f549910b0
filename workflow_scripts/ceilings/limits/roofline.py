"""The least time that a device's measured limits allow for a graph's work, and what of it sets that time."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterable, Mapping
from typing import Any

from ceilings.graphs.operations import Node, Product, Work, flops_by_precision, products

VECTOR_UNITS = {"fp32"}
"""Precisions whose products run on the vector units, which may work at the same time as the matrix units."""

RATE = re.compile(r"matrix_rate\.(?P<precision>\w+)\.(?P<m>\d+)x(?P<n>\d+)x(?P<k>\d+)")


@dataclasses.dataclass(frozen=True)
class Limits:
    """What a device reaches, from its ``peaks.json``; None where that could not be measured.

    Attributes:
        rates: Operations a second by (precision, (M, N, K)) of the product that was measured.
        dram: Bytes a second from device memory.
        l2: Bytes a second from the L2 cache.
        l2_bytes: Its size.
        launch: Seconds from launching a CUDA graph of one empty kernel until the host knows that it is done.
    """

    rates: Mapping[tuple[str, tuple[int, int, int]], float]
    dram: float | None
    l2: float | None
    l2_bytes: int
    launch: float | None

    def rate(self, precision: str) -> float | None:
        """The highest that any product reached, in operations a second."""
        return max((rate for (kind, _), rate in self.rates.items() if kind == precision), default=None)


def read_limits(record: Mapping[str, Any]) -> Limits:
    """The limits in the content of a ``peaks.json``."""
    values = {name: peak["median"] for name, peak in record["peaks"].items() if peak.get("median")}
    rates = {
        (match["precision"], (int(match["m"]), int(match["n"]), int(match["k"]))): value * 1e12
        for name, value in values.items()
        if (match := RATE.fullmatch(name))
    }
    # A copy reads and writes, a load reads: whichever the memory does faster bounds what a network can move.
    dram = [values[name] * 1e9 for name in ("read_bandwidth", "copy_bandwidth") if name in values]
    return Limits(
        rates=rates,
        dram=max(dram, default=None),
        l2=values["l2_read_bandwidth"] * 1e9 if "l2_read_bandwidth" in values else None,
        l2_bytes=record["l2_bytes"],
        launch=values["graph_to_completion.1"] / 1e6 if "graph_to_completion.1" in values else None,
    )


def missing(limits: Limits, precisions: Iterable[str]) -> list[str]:
    """What a floor of products in ``precisions`` needs and was not measured."""
    needed = {"DRAM bandwidth": limits.dram, "L2 bandwidth": limits.l2, "graph launch": limits.launch}
    needed |= {f"matrix rate in {precision}": limits.rate(precision) for precision in precisions}
    return [name for name, value in needed.items() if value is None]


class Roofline:
    """A graph's work against a device's limits.

    Args:
        work: Of one inference.
        limits: All that ``missing`` asks for.
        precision: Of the cell; ``tf32`` multiplies FP32 operands on the matrix units.
    """

    def __init__(self, work: Work, limits: Limits, precision: str) -> None:
        self.work, self.limits = work, limits
        self._aliases = {"fp32": "tf32"} if precision == "tf32" else {}

    @property
    def precisions(self) -> list[str]:
        """Those that products are computed in."""
        return sorted(self._computed_in(self.work.nodes))

    def floor(self) -> dict[str, Any]:
        """Times in ms and what sets them.

        ``limited_by`` is ``compute``, ``dram``, ``l2`` or ``launch``.
        """
        share = self._dram_share
        parts = {
            "compute": self._compute(self.work.nodes),
            "dram": self.work.bytes * share / _known(self.limits.dram),
            "l2": self.work.bytes / _known(self.limits.l2),
            "launch": _known(self.limits.launch),
        }
        limited_by = max(parts, key=lambda name: parts[name])
        return {
            "compute_floor_ms": parts["compute"] * 1e3,
            "memory_floor_ms": max(parts["dram"], parts["l2"]) * 1e3,
            "launch_floor_ms": parts["launch"] * 1e3,
            "floor_ms": parts[limited_by] * 1e3,
            "limited_by": limited_by,
            "cold_memory_floor_ms": self.work.bytes / _known(self.limits.dram) * 1e3,
            "l2_share": 1 - share,
        }

    def classes(self) -> dict[str, dict[str, Any]]:
        """By class: operations, bytes, the time of its products at the matrix rate, and the time it takes if each
        operator is one kernel at the limits. A fused kernel may be faster than the latter, since it moves less."""
        return {
            kind: {
                "operators": len(nodes),
                "flops": sum(self._computed_in(nodes).values()),
                "vector_operations": sum(node.operations for node in nodes),
                "weight_bytes": sum(node.weight_bytes for node in nodes),
                "activation_bytes": sum(node.activation_bytes for node in nodes),
                "compute_ms": self._compute(nodes) * 1e3,
                "unfused_ms": sum(map(self._unfused, nodes)) * 1e3,
            }
            for kind, nodes in self.work.by_class().items()
        }

    def library(self) -> dict[str, Any]:
        """What the measured library takes for the products with weights, one after the other, each at its size.

        ``flops_share`` is the part of their operations whose sizes were measured; the time is of these alone.
        """
        seconds = covered = total = 0.0
        for product, kind, nodes in products(self.work):
            if kind != "gemm":
                continue
            flops = product.flops * nodes
            total += flops
            if rate := self.limits.rates.get((self._precision(product), (product.m, product.n, product.k))):
                seconds += flops / rate
                covered += flops
        return {"ms": seconds * 1e3, "flops_share": covered / total if total else 0.0}

    # --- inner ------------------------------------------------------------------------------------------------------

    @property
    def _dram_share(self) -> float:
        """The part of the bytes that cannot have stayed in L2 since the inference before."""
        return max(0.0, 1 - self.limits.l2_bytes / self.work.bytes)

    def _precision(self, product: Product) -> str:
        return self._aliases.get(product.precision, product.precision)

    def _computed_in(self, nodes: Iterable[Node]) -> dict[str, int]:
        return {self._aliases.get(kind, kind): flops for kind, flops in flops_by_precision(nodes).items()}

    def _compute(self, nodes: Iterable[Node]) -> float:
        """Seconds of the products alone: what runs on different units may overlap, what shares them may not."""
        seconds = {kind: flops / _known(self.limits.rate(kind)) for kind, flops in self._computed_in(nodes).items()}
        vector = sum(value for kind, value in seconds.items() if kind in VECTOR_UNITS)
        return max(vector, sum(seconds.values()) - vector)

    def _unfused(self, node: Node) -> float:
        """Seconds of one operator as a kernel: what fits L2 is still there from the kernel before."""
        nbytes = node.weight_bytes + node.activation_bytes
        far = node.weight_bytes * self._dram_share
        if node.activation_bytes > self.limits.l2_bytes:
            far += node.activation_bytes
        return max(self._compute([node]), nbytes / _known(self.limits.l2), far / _known(self.limits.dram))


def _known(value: float | None) -> float:
    if value is None:
        raise ValueError("a limit that the floor needs was not measured; ask missing() first")
    return value

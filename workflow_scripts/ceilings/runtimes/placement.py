"""Which execution provider runs which node of an ONNX Runtime session, and which operators are left.

Two sources. What providers claimed (``session.record_ep_graph_assignment_info``) is known once a session is open and
costs a run nothing, but it is older than the last fusions. A profile has every kernel that really ran, copies between
host and device included, but needs a session of its own.
"""

from __future__ import annotations

import dataclasses
import gc
import json
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from ceilings.errors import CellFailure
from ceilings.lifetime import temporary_folder

CPU = "CPUExecutionProvider"

LIGHT = frozenset(
    {
        "Shape",
        "Size",
        "Constant",
        "ConstantOfShape",
        "Range",
        "Reshape",
        "Squeeze",
        "Unsqueeze",
        "Slice",
        "Gather",
        "Concat",
        "Cast",
        "Add",
        "Sub",
        "Mul",
        "Div",
        "Equal",
        "Not",
        "And",
        "Or",
        "Less",
        "Greater",
        "Where",
        "Expand",
        "Min",
        "Max",
        "Identity",
        "ReduceProd",
        "ScatterND",
        "Flatten",
        "Transpose",
        "Sqrt",
        "Neg",
        "Floor",
        "Ceil",
    }
)
"""Operators that appear in arithmetic on shapes. ORT puts that on the CPU on purpose."""

LIGHT_ELEMENTS = 1 << 16
"""A profiled node of these operators is arithmetic on shapes only while no tensor is larger than this."""

COPIES = ("MemcpyToHost", "MemcpyFromHost")
INTEGER_PRODUCTS = (
    *("MatMulInteger", "ConvInteger", "QLinearMatMul", "QLinearConv", "QGemm", "QAttention"),
    *("QOrderedMatMul", "QOrderedAttention", "QOrderedLongformerAttention", "DynamicQuantizeMatMul"),
)
"""Beginnings of operators that multiply matrices in INT8. Others compute in INT8 and multiply none: QLinearAdd."""

FLOAT_PRODUCTS = ("MatMul", "Gemm", "FusedMatMul", "GemmFastGelu", "Attention", "MultiHeadAttention", "FusedGemm")


@dataclasses.dataclass(frozen=True)
class Node:
    """One node: its provider, and the elements of its largest tensor where a profile tells (else None)."""

    name: str
    operator: str
    provider: str
    elements: int | None = None

    @property
    def heavy(self) -> bool:
        """Whether it computes on data rather than on shapes."""
        if self.operator in COPIES:
            return False
        return self.operator not in LIGHT or (self.elements or 0) > LIGHT_ELEMENTS


def assigned(session: Any) -> list[Node]:
    """Nodes as providers claimed them. Empty unless the session was opened to record that."""
    return [
        Node(node.name, node.op_type, group.ep_name)
        for group in session.get_provider_graph_assignment_info()
        for node in group.get_nodes()
    ]


def profiled(path: Path) -> list[Node]:
    """Nodes that ran, from a profile of one run."""
    nodes = []
    for event in json.loads(path.read_text(encoding="utf-8")):
        arguments = event.get("args") or {}
        if event.get("cat") != "Node" or not event["name"].endswith("_kernel_time") or "provider" not in arguments:
            continue
        tensors = [*arguments.get("input_type_shape", []), *arguments.get("output_type_shape", [])]
        elements = max((_product(dims) for tensor in tensors for dims in tensor.values()), default=0)
        name = event["name"].removesuffix("_kernel_time")
        nodes.append(Node(name, arguments["op_name"], arguments["provider"], elements))
    return nodes


def profile(options: Any, open_session: Callable[[Any], Any], feed: Mapping[str, NDArray[Any]]) -> list[Node]:
    """Nodes that ran in one inference by a session of its own.

    Args:
        options: The session's, which are switched to profiling.
        open_session: Opens the session.
        feed: Its inputs.
    """
    return profile_of(options, open_session, lambda session: session.run(None, feed))


def profile_of(options: Any, open_session: Callable[[Any], Any], run: Callable[[Any], Any]) -> list[Node]:
    """Nodes that ran in whatever ``run`` does with a session of its own, in the order in which they ran."""
    with temporary_folder() as folder:
        options.enable_profiling = True
        options.profile_file_prefix = str(Path(folder, "profile"))
        session = open_session(options)
        run(session)
        path = Path(session.end_profiling())
        del session
        gc.collect()
        return profiled(path)


def refuse_fallback(nodes: Sequence[Node], provider: str) -> None:
    """Raise if a node that computes does not run on ``provider``.

    Raises:
        CellFailure: ``fallback``, naming the nodes.
    """
    wrong = [node for node in nodes if node.provider == CPU != provider and node.heavy]
    if wrong:
        names = ", ".join(f"{node.operator} {node.name!r}" for node in wrong[:5])
        more = f" and {len(wrong) - 5} more" if len(wrong) > 5 else ""
        raise CellFailure("fallback", f"{len(wrong)} of {len(nodes)} nodes ran on the CPU: {names}{more}")


def require_one_partition(session: Any, provider: str) -> None:
    """Raise unless ``provider`` took the whole graph as one piece; two pieces mean copies and waits between them.

    Raises:
        CellFailure: ``fallback``.
    """
    pieces = session.get_provider_graph_assignment_info()
    others = [
        f"{node.op_type} {node.name!r}" for piece in pieces if piece.ep_name != provider for node in piece.get_nodes()
    ]
    if others:
        more = f" and {len(others) - 5} more" if len(others) > 5 else ""
        raise CellFailure("fallback", f"{len(others)} nodes are not on {provider}: {', '.join(others[:5])}{more}")
    if len(pieces) != 1:
        raise CellFailure("fallback", f"{provider} took the graph in {len(pieces)} partitions, not as one")


def summary(nodes: Sequence[Node]) -> dict[str, Any]:
    """Counts: nodes by provider, operators after optimisation, copies across the bus, products in INT8 and in float."""
    operators = Counter(node.operator for node in nodes)
    return {
        "nodes_by_provider": dict(Counter(node.provider for node in nodes).most_common()),
        "operators": dict(sorted(operators.items(), key=lambda item: (-item[1], item[0]))),
        "copies": {name: operators[name] for name in COPIES},
        "on_cpu": dict(Counter(node.operator for node in nodes if node.provider == CPU).most_common()),
        "int8_products": {name: n for name, n in operators.items() if name.startswith(INTEGER_PRODUCTS)},
        "float_products": {name: operators[name] for name in FLOAT_PRODUCTS if operators[name]},
        "dequantize_nodes": operators["DequantizeLinear"],
        "fused_attentions": operators["Attention"] + operators["MultiHeadAttention"],
    }


def unknown(error: Exception) -> dict[str, Any]:
    """What stands in a record where a profile could not be made."""
    return {"placement": None, "placement_unknown": f"{type(error).__name__}: {str(error)[:200]}"}


def _product(dims: Sequence[int]) -> int:
    total = 1
    for dim in dims:
        total *= dim
    return total

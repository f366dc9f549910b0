"""The library with the operators of a graph of this project: where it lies, and how a session gets it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from ceilings import artifacts
from ceilings.errors import UserError

if TYPE_CHECKING:
    import onnxruntime

GRAPH, LIBRARY = ".operator.onnx", ".attention.so"
"""How the names of a graph with our operators and of their library end; what is before is the same."""


def library_of(graph: Path | str) -> Path | None:
    """The library of a graph, by its name; None where the graph needs none.

    >>> library_of("results/onnx/distilbert/fp16.operator.onnx").name
    'fp16.attention.so'
    >>> library_of("results/onnx/distilbert/fp16.fused.onnx")
    """
    path = Path(graph)
    return path.with_name(f"{path.name.removesuffix(GRAPH)}{LIBRARY}") if path.name.endswith(GRAPH) else None


def files_of(graph: Path | str) -> list[str]:
    """The library of a graph and the report that vouches for it; nothing where the graph needs none."""
    library = library_of(graph)
    return [str(library), str(artifacts.report_of(library))] if library else []


def register(options: onnxruntime.SessionOptions, graph: Path | str) -> None:
    """Give a session's options the library that its graph needs, if it needs one.

    Raises:
        UserError: The library is not there, or is not what its report vouches for.
        CellFailure: It could not be built.
    """
    if (library := library_of(graph)) is None:
        return
    if not library.is_file():
        raise UserError(f"{graph} needs {library}, which does not exist; run the rule that makes it (build_operator)")
    artifacts.refuse_failed(library)
    options.register_custom_ops_library(str(library))

"""``CeilingsAttention``: attention of encoders as a plug-in of TensorRT (IPluginV3), for graphs that hold such a node.

The node: inputs query, key and value, (batch, sequence, hidden) in FP16, and optionally a mask, (batch, sequence) in
INT64, zero where a token is padding; attribute ``num_heads``; output as the query. The kernel is that of
``ceilings.kernels.attention``; an engine holds the node's fields and calls it in the process that executes the engine.

TensorRT's documentation of IPluginV3 names the methods; ``tests/unit/engines/test_attention_plugin.py`` builds engines
with it.
"""

from __future__ import annotations

import mmap
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

import numpy as np

NAME, VERSION = "CeilingsAttention", "1"

HEADS, TILE = "num_heads", "tile"
"""Fields: the node's, and the tactic that an engine keeps beside it."""

TILES = ((16, 128), (32, 64), (64, 64))
"""Blocks of queries and keys that the builder times: its tactics, counted from 1."""


class Call(NamedTuple):
    """One execution of the node.

    Attributes:
        shape: Batch, sequence and hidden size.
        inputs: Addresses on the device, in the node's order; three, or four with a mask.
        output: The result's address.
        heads: They share the hidden size alike.
        tile: Of ``TILES``.
        stream: The CUDA stream's handle.
    """

    shape: tuple[int, int, int]
    inputs: tuple[int, ...]
    output: int
    heads: int
    tile: tuple[int, int]
    stream: int


Run = Callable[[Call], None]
"""Enqueues the kernel."""


def needed(graph: Path | str) -> bool:
    """Whether a file of a graph or an engine has such a node."""
    with open(graph, "rb") as file:
        try:
            with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
                return content.find(NAME.encode()) >= 0
        except ValueError:  # an empty file
            return False


def register(trt: Any, run: Run | None = None) -> Any:
    """Let TensorRT know the plug-in; returns its creator, which must live as long as TensorRT is used.

    Its ``refusals`` say what of a graph the kernel cannot read.

    Args:
        trt: The bindings of a generation.
        run: What executes the node. None: engines are built and none is executed; a generation that times tactics
            while it builds calls it too.
    """
    creator = make_creator(trt, run)
    if not trt.get_plugin_registry().register_creator(creator, ""):
        raise RuntimeError(f"TensorRT {trt.__version__} refuses the plug-in {NAME}")
    return creator


def make_creator(trt: Any, run: Run | None = None) -> Any:
    """A creator of the plug-in, of the classes of a generation's bindings."""

    class Attention(  # type: ignore[misc]
        trt.IPluginV3, trt.IPluginV3OneCore, trt.IPluginV3OneBuild, trt.IPluginV3OneRuntime
    ):
        def __init__(self, heads: int, tile: int) -> None:
            for base in Attention.__bases__:
                base.__init__(self)
            self.plugin_name, self.plugin_version, self.plugin_namespace = NAME, VERSION, ""
            self.num_outputs = 1
            self.timing_cache_id = f"{HEADS}={heads}"
            self.heads, self.tile = heads, tile

        def get_capability_interface(self, kind: Any) -> Any:
            return self

        def clone(self) -> Any:
            return keep(Attention(self.heads, self.tile))

        # Building

        def get_output_data_types(self, input_types: Sequence[Any]) -> list[Any]:
            return [input_types[0]]

        def get_output_shapes(self, inputs: Sequence[Any], shape_inputs: Sequence[Any], builder: Any) -> list[Any]:
            return [trt.DimsExprs(inputs[0])]

        def supports_format_combination(self, place: int, tensors: Sequence[Any], inputs: int) -> bool:
            mask = place == 3 and inputs == 4
            wanted = trt.DataType.INT64 if mask else trt.DataType.HALF
            return bool(tensors[place].desc.format == trt.TensorFormat.LINEAR and tensors[place].desc.type == wanted)

        def configure_plugin(self, inputs: Sequence[Any], outputs: Sequence[Any]) -> None:
            self._check([list(one.desc.dims) for one in inputs])

        def get_valid_tactics(self) -> list[int]:
            return list(range(1, len(TILES) + 1))

        # Executing

        def set_tactic(self, tactic: int) -> None:
            self.tile = tactic

        def on_shape_change(self, inputs: Sequence[Any], outputs: Sequence[Any]) -> None:
            self._check([list(one.dims) for one in inputs])

        def attach_to_context(self, context: Any) -> Any:
            return self.clone()

        def get_fields_to_serialize(self) -> Any:
            self.fields = trt.PluginFieldCollection([integer(HEADS, self.heads), integer(TILE, self.tile)])
            return self.fields

        def enqueue(  # noqa: PLR0917 (TensorRT's arguments)
            self,
            input_desc: Sequence[Any],
            output_desc: Sequence[Any],
            inputs: Sequence[int],
            outputs: Sequence[int],
            workspace: int,
            stream: int,
        ) -> None:
            if run is None:
                raise RuntimeError(f"{NAME} was registered to build engines, and has nothing to execute them with")
            batch, sequence, hidden = input_desc[0].dims
            tile = TILES[max(self.tile, 1) - 1]
            run(Call((batch, sequence, hidden), tuple(inputs), outputs[0], self.heads, tile, stream))

        def _check(self, dims: list[list[int]]) -> None:
            """Refuse what the kernel cannot read; an unknown size (-1) is looked at when it is known."""
            if len(dims) not in (3, 4) or any(len(one) != 3 or one != dims[0] for one in dims[:3]):
                refuse(f"{NAME} reads query, key and value of (batch, sequence, hidden) alike, not {dims}")
            if dims[0][2] > 0 and dims[0][2] % self.heads:
                refuse(f"{NAME}: {self.heads} heads do not share a hidden size of {dims[0][2]} alike")

    def integer(name: str, value: int) -> Any:
        return trt.PluginField(name, np.array([value], dtype=np.int32), trt.PluginFieldType.INT32)

    class Creator(trt.IPluginCreatorV3One):  # type: ignore[misc]
        def __init__(self) -> None:
            trt.IPluginCreatorV3One.__init__(self)
            self.name, self.plugin_version, self.plugin_namespace = NAME, VERSION, ""
            self.field_names = trt.PluginFieldCollection([integer(HEADS, 0)])
            self.made: list[Any] = []
            self.refusals: list[str] = []

        def create_plugin(self, name: str, fields: Any, phase: Any) -> Any:
            given = {field.name: int(np.asarray(field.data).ravel()[0]) for field in fields or ()}
            if given.get(HEADS, 0) < 1:
                refuse(f"{NAME}: the node {name} has no attribute {HEADS}, a number of 1 and more")
            return keep(Attention(given[HEADS], given.get(TILE, 0)))

    creator = Creator()

    def keep(plugin: Any) -> Any:
        """A plug-in that lives as long as its creator: TensorRT calls it without a reference that Python counts."""
        creator.made.append(plugin)
        return plugin

    def refuse(why: str) -> NoReturn:
        """Keep the reason, which TensorRT does not pass on."""
        creator.refusals.append(why)
        raise ValueError(why)

    return creator

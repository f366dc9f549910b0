"""What a study may set of a runtime, as part of its name: ``onnxruntime-cpu+arena=off``. Standard library only.

A name holds all that differs from the runtime as it is, so a path, a table and a record of another machine say by
themselves what ran. It is unique: settings stand in their runtime's order, and one that is the default is left out.
No runner imports this, so that a new setting times nothing anew; runners read the values by their names.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping, Sequence

PATTERN = r"(\+[a-z-]+=[a-z0-9-]+)*"
"""What may follow the name of a runtime."""


@dataclasses.dataclass(frozen=True)
class Setting:
    """One thing that can be set.

    Attributes:
        name: As it stands in the name of a runtime.
        values: What it can be, the default first.
        meaning: What it is, for the documentation.
        levers: What a value is called as a lever, where that is another name than its own.
        generates: Whether it is also of models that generate.
        pattern: What it can be beside these, as a regular expression; empty: nothing.
        form: The same in words.
    """

    name: str
    values: tuple[str, ...]
    meaning: str
    levers: Mapping[str, str] = dataclasses.field(default_factory=dict, hash=False)
    generates: bool = True
    pattern: str = ""
    form: str = ""

    @property
    def default(self) -> str:
        """What a runtime has whose name says nothing of it."""
        return self.values[0]

    def takes(self, value: str) -> bool:
        """Whether it can be that."""
        return value in self.values or bool(self.pattern and re.fullmatch(self.pattern, value))

    @property
    def allowed(self) -> str:
        """What it can be, in words."""
        return ", ".join([*map("`{}`".format, self.values), *filter(None, [self.form])])

    def lever(self, value: str) -> str:
        """A value other than the default as a lever.

        >>> Setting("arena", ("next-power-of-two", "off"), "").lever("off")
        'arena off'
        """
        return self.levers.get(value) or f"{self.name} {value}".replace("-", " ")


def split(name: str) -> tuple[str, dict[str, str]]:
    """The runtime that a name begins with, and what the name sets of it.

    >>> split("onnxruntime-cpu+arena=off+prepacking=off")
    ('onnxruntime-cpu', {'arena': 'off', 'prepacking': 'off'})
    """
    plain, *parts = name.split("+")
    return plain, {key: value for key, _, value in (part.partition("=") for part in parts)}


def joined(plain: str, chosen: Mapping[str, str], known: Sequence[Setting]) -> str:
    """The name of a runtime with these settings: in their order, without defaults."""
    parts = [f"+{one.name}={chosen[one.name]}" for one in known if chosen.get(one.name, one.default) != one.default]
    return "".join([plain, *parts])


def problem(name: str, known: Sequence[Setting]) -> str | None:
    """What is wrong with the settings in a name, as what follows it, with the remedy; None where nothing is.

    Args:
        known: What can be set of the runtime that the name begins with.
    """
    plain, chosen = split(name)
    if not known:
        return f"sets something of {plain}, of which nothing can be set; write {plain}"
    if not re.fullmatch(re.escape(plain) + PATTERN, name):
        return f"is no name with settings; write it as {plain}+{known[0].name}={known[0].values[-1]}"
    by_name = {one.name: one for one in known}
    for key, value in chosen.items():
        if key not in by_name:
            return f"sets {key}, which {plain} does not have; it has {', '.join(by_name)}"
        if not by_name[key].takes(value):
            return f"sets {key} to {value}; write one of {by_name[key].allowed}"
    if (unique := joined(plain, chosen, known)) != name:
        return f"is called {unique}: settings stand in one order, each once, and none is its default; write that"
    return None


POWERS, EXACT, OFF, ON = "next-power-of-two", "same-as-requested", "off", "on"

SEARCH = Setting(
    "convolution-search",
    ("exhaustive", "heuristic", "default"),
    "how the CUDA provider chooses the algorithm of a convolution (`cudnn_conv_algo_search`), in ONNX Runtime's words: "
    "its default is `exhaustive`, and `default` is a third way",
)
CUDA_ARENA = Setting(
    "arena",
    (EXACT, POWERS),
    "by how much the arena grows (`arena_extend_strategy`). ONNX Runtime's default is `next-power-of-two`: peak memory "
    "then says powers of two, and no size of the model",
)
CPU_ARENA = Setting(
    "arena",
    (POWERS, EXACT, OFF),
    "by how much the arena grows; `off`: each tensor is allocated and freed (`enable_cpu_mem_arena`)",
)
MEMORY_PATTERN = Setting(
    "memory-pattern",
    (ON, OFF),
    "whether the session lays out the tensors of a known shape in one block (`enable_mem_pattern`)",
)
PREPACKING = Setting(
    "prepacking",
    (ON, OFF),
    "whether weights are laid out for their kernels while the session opens (`session.disable_prepacking`)",
)

AUTOMATIC, CONSTANT, SYMBOLIC, MARKED = "automatic", "constant", "symbolic", "marked"
GRAPH_PER_SHAPE, SYMBOLIC_SIZES, MARKED_AXES = "graph per shape", "symbolic sizes", "marked axes"

SIZES = Setting(
    "sizes",
    (AUTOMATIC, CONSTANT, SYMBOLIC, MARKED),
    "what `torch.compile` makes of sizes. `automatic`: a second shape makes symbols of those that differ; `constant`: "
    "each shape gets a graph (`dynamic=False`); `symbolic`: all are symbols (`dynamic=True`); `marked`: those of the "
    "axes of the model",
    levers={CONSTANT: GRAPH_PER_SHAPE, SYMBOLIC: SYMBOLIC_SIZES, MARKED: MARKED_AXES},
    generates=False,
)

ENGINE = Setting(
    "engine",
    ("first",),
    "which engine of `engines.profiles` or `engines.external` it runs, by name: one of a wide profile, or of several "
    "narrow ones. `first`: the first one that takes all shapes",
    pattern=r"[a-z0-9][a-z0-9-]*",
    form="the name of an engine",
)
CONTEXTS = Setting(
    "contexts",
    ("one", "per-profile"),
    "whether one execution context switches its profile where shapes change, or each profile has a context, with its "
    "own memory for what lies between layers",
)

CAPTURED = Setting(
    "captured",
    ("default",),
    "batches of which vLLM captures CUDA graphs (`cudagraph_capture_sizes`). A batch between two runs as the larger "
    "one, a batch beyond all without a graph; a prefill counts its tokens",
    pattern=r"[1-9][0-9]{0,4}(-[1-9][0-9]{0,4})*",
    form="batches such as 1-4-16",
)

OF_ORT_CPU = (CPU_ARENA, MEMORY_PATTERN, PREPACKING)
OF_ORT_CUDA = (SEARCH, CUDA_ARENA, MEMORY_PATTERN, PREPACKING)
OF_TORCH_COMPILE = (SIZES,)
OF_TENSORRT = (ENGINE, CONTEXTS)
OF_VLLM = (CAPTURED,)
"""Of stacks, in the order of a name."""

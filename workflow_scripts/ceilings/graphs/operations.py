"""What a graph has to compute and to move at one shape: operations and bytes, by node and by class of kernel.

Operations of products are exact: 2 for each multiply-add, in the type that the operands are stored in. Bytes come in
two readings: what any implementation must move (each weight once, the gathered rows of tables, inputs and outputs), and
what one kernel for each operator would move (each reads its inputs and writes its outputs). docs/floors.md says what is
not counted.
"""

from __future__ import annotations

import dataclasses
import math
import re
from collections import Counter
from collections.abc import Collection, Iterable, Mapping

import onnx

from ceilings.errors import UserError
from ceilings.graphs import graph
from ceilings.graphs.shapes import Tensor, resolve
from ceilings.taxonomy import OPERATOR_CLASSES
from ceilings.workload.shape import Shape

STORED = {
    "float": "fp32",
    "float16": "fp16",
    "bfloat16": "bf16",
    "int8": "int8",
    "uint8": "int8",
    "float8e4m3fn": "fp8",
}
"""Type of a tensor to the precision whose matrix rate it is multiplied at."""

WIDEST_FIRST = {precision: rank for rank, precision in enumerate(("fp32", "fp16", "bf16", "fp8", "int8"))}

PRODUCTS = {"MatMul", "Gemm"}
QUANTIZERS = {"QuantizeLinear", "DequantizeLinear"}
VIEWS = {"Reshape", "Unsqueeze", "Squeeze", "Flatten", "Identity", "Shape"}
"""Change how a tensor is read, and move nothing."""

COPIES = {
    *("Transpose", "Cast", "Concat", "Slice", "Split", "Expand", "Tile", "Pad", "Trilu", "DepthToSpace"),
    *("Constant", "ConstantOfShape", "Range", "EyeLike", "OneHot", "ScatterND", "ScatterElements"),
}
GATHERS = {"Gather", "GatherND", "GatherElements"}
NORMALIZATIONS = {
    "LayerNormalization": 7,
    "RMSNormalization": 4,
    "BatchNormalization": 2,
    "LpNormalization": 3,
    **dict.fromkeys(("ReduceMean", "ReduceSum", "ReduceMax", "ReduceMin", "ReduceProd"), 1),
    **dict.fromkeys(("ReduceL2", "ReduceSumSquare"), 2),
}
"""Operations an input element. LayerNormalization: mean, difference, square, its mean, product, scale, shift;
RMSNormalization has no mean and no shift, BatchNormalization a scale and a shift."""

SOFTMAX = 5
"""Operations an element: maximum, difference, exponential, sum, quotient."""

ELEMENTWISE = {
    **dict.fromkeys(
        (
            *("Add", "Sub", "Mul", "Div", "Mod", "Pow", "Sqrt", "Neg", "Abs", "Sign", "Reciprocal", "Exp", "Log"),
            *("Min", "Max", "Sum", "Clip", "Floor", "Ceil", "Round", "Erf", "Tanh", "Sigmoid", "Softplus", "Relu"),
            *("LeakyRelu", "Elu", "HardSigmoid", "Sin", "Cos", "CumSum"),
            *("Where", "Equal", "Greater", "GreaterOrEqual", "Less", "LessOrEqual", "And", "Or", "Not", "Xor"),
            *("IsNaN", "IsInf"),
        ),
        1,
    ),
    # Written out, GELU is a quotient, an Erf, a sum and two products; HardSwish and Swish a Sigmoid and a product.
    "Gelu": 5,
    "HardSwish": 2,
    "Swish": 2,
    "Mish": 3,
}
"""Operations an output element, transcendental or not."""

CACHE = re.compile(r"(past|present)\.\d+\.(key|value)$")
"""Keys and values of a decoder's layers, as ``Decoder.step_inputs`` and ``step_outputs`` name them."""

SELECTIONS = {"ArgMax": 1, "ArgMin": 1, "TopK": 1}
"""Operations an input element."""


@dataclasses.dataclass(frozen=True)
class Product:
    """A matrix product, or a convolution as one.

    Attributes:
        m, n, k: Rows of the left side (all leading dimensions together where the right side is one matrix), columns of
            the right side, and the length of the sums.
        count: How many such products the node makes.
        precision: Type that both operands are stored in; the wider one where they differ.
        masked: Multiply-adds, of all of them together, that a causal mask makes needless: a token sees none after it.
    """

    m: int
    n: int
    k: int
    count: int
    precision: str
    masked: int = 0

    @property
    def flops(self) -> int:
        return 2 * (self.m * self.n * self.k * self.count - self.masked)


@dataclasses.dataclass(frozen=True)
class Node:
    """What one operator computes and moves.

    Attributes:
        kind: One of ``OPERATOR_CLASSES``.
        product: The matrix product that it is, if it is one.
        operations: Of vector units: everything that is no matrix product.
        weight_bytes: Constants that it reads; of a table the gathered rows.
        activation_bytes: Everything else that it reads, and what it writes.
    """

    name: str
    op_type: str
    kind: str
    product: Product | None
    operations: int
    weight_bytes: int
    activation_bytes: int


@dataclasses.dataclass(frozen=True)
class Work:
    """What a graph computes and moves at a shape.

    Attributes:
        nodes: Every operator that remains once what is constant is folded; views and Q/DQ left out.
        weight_bytes: Each constant once, of tables the gathered rows.
        boundary_bytes: Inputs and outputs of the network, without keys and values.
        unknown: Operators whose operations are not known, with their number: counted as none, so that a floor made of
            these numbers stays one.
        cache_bytes: Of a decoder's forward pass, keys and values: those of the past, which it reads, and those of its
            tokens, which it writes. What an output repeats of the past moves nothing in a cache that grows in place.
    """

    nodes: tuple[Node, ...]
    weight_bytes: int
    boundary_bytes: int
    unknown: Mapping[str, int]
    cache_bytes: int = 0

    @property
    def bytes(self) -> int:
        """What any implementation moves."""
        return self.weight_bytes + self.boundary_bytes + self.cache_bytes

    @property
    def flops(self) -> int:
        return sum(self.flops_by_precision().values())

    def flops_by_precision(self) -> dict[str, int]:
        """Operations of matrix products by the type of their operands."""
        return flops_by_precision(self.nodes)

    def by_class(self) -> dict[str, list[Node]]:
        """Nodes by class, in the order of ``OPERATOR_CLASSES``; classes without any left out."""
        found = {kind: [node for node in self.nodes if node.kind == kind] for kind in OPERATOR_CLASSES}
        return {kind: nodes for kind, nodes in found.items() if nodes}


def flops_by_precision(nodes: Iterable[Node]) -> dict[str, int]:
    """Operations of the matrix products among ``nodes``, by the type of their operands."""
    total: Counter[str] = Counter()
    for node in nodes:
        if node.product:
            total[node.product.precision] += node.product.flops
    return dict(total)


def count(model: onnx.ModelProto, shape: Shape) -> Work:
    """Count the work of one inference.

    Args:
        model: A graph of standard operators; Q/DQ is read as the type of what is stored, not as work.
        shape: Sizes of the graph's axes; how long inputs really are makes no difference.

    Raises:
        UserError: The graph has other axes or other fixed sizes, or operators whose shapes cannot be found.
    """
    if not graph.takes(model, shape):
        fixed = graph.fixed_axes(model)
        raise UserError(f"the graph is fixed to {fixed}, so there is nothing to count at {shape.full}")
    resolved = resolve(model, shape)
    tensors = resolved.tensors
    counter = _Counter(tensors, resolved.constants)
    nodes = [node for proto in resolved.nodes if (node := counter.node(proto))]
    ends = [value.name for value in (*model.graph.input, *model.graph.output)]
    cached = [name for name in ends if CACHE.match(name)]
    if cached:
        nodes = [_causal(node, shape) for node in nodes]
    # The past is read and what an output adds to it is written: together what the outputs hold.
    return Work(
        nodes=tuple(nodes),
        weight_bytes=counter.weight_bytes(_stored(model) if cached else None),
        boundary_bytes=sum(tensors[name].bytes for name in ends if name not in cached),
        unknown=dict(counter.unknown),
        cache_bytes=sum(tensors[name].bytes for name in cached if name.startswith("present.")),
    )


def _stored(model: onnx.ModelProto) -> set[str]:
    """Names of the constants that the file holds, and of what is another reading of one."""
    stored = {tensor.name for tensor in model.graph.initializer}
    for node in model.graph.node:
        if node.op_type == "Constant" or (node.op_type in VIEWS | {"Transpose", "Cast"} and node.input[0] in stored):
            stored.update(node.output)
    return stored


def _causal(node: Node, shape: Shape) -> Node:
    """A node of a decoder, its product of attention without what the mask leaves out."""
    tokens, past, present = (shape[axis] for axis in ("tokens", "past", "present"))
    product = node.product
    if node.kind != "attention" or product is None or product.m != tokens or present not in (product.n, product.k):
        return node
    hidden = tokens * present - sum(past + number for number in range(1, tokens + 1))
    masked = product.m * product.n * product.k // (tokens * present) * hidden * product.count
    return dataclasses.replace(node, product=dataclasses.replace(product, masked=masked))


class _Counter:
    """Counts nodes in graph order; what comes from a DequantizeLinear is read as what it was stored in."""

    def __init__(self, tensors: Mapping[str, Tensor], constants: set[str]) -> None:
        self._tensors = tensors
        self._constants = constants
        self._stored: dict[str, str] = {}
        self._weights: dict[str, int] = {}
        self._gathered: dict[tuple[str, str], int] = {}
        self.unknown: Counter[str] = Counter()

    def weight_bytes(self, stored: Collection[str] | None = None) -> int:
        """Of the nodes so far. The rows of a table that a product reads whole, tied weights, come with it.

        Args:
            stored: The only names that count. A decoder's mask follows from sizes alone, so nothing stores it, and at a
                long prompt it would be larger than all weights.
        """
        rows = sum(nbytes for (table, _), nbytes in self._gathered.items() if table not in self._weights)
        return rows + sum(size for name, size in self._weights.items() if stored is None or name in stored)

    def node(self, proto: onnx.NodeProto) -> Node | None:
        inputs = [name for name in proto.input if name]
        outputs = [name for name in proto.output if name]
        constant = proto.op_type in ("Transpose", "Expand") and inputs[0] in self._constants
        if constant and self._tensors[inputs[0]].kind in STORED:
            self._stored[outputs[0]] = self._stored.get(inputs[0], inputs[0])
        if proto.op_type == "DequantizeLinear":
            self._stored[outputs[0]] = inputs[0]
        elif inputs and inputs[0] in self._stored and proto.op_type in VIEWS | {"Transpose"}:
            self._stored[outputs[0]] = self._stored[inputs[0]]
        if constant or proto.op_type in QUANTIZERS | VIEWS:
            return None
        table = proto.op_type in GATHERS and inputs[0] in self._constants
        kind, operations, product = self._work(proto, inputs, outputs)
        weight = activation = 0
        for position, name in enumerate(inputs):
            if table and position == 0:
                rows = min(self._tensors[outputs[0]].elements * self._tensor(name).itemsize, self._read(name))
                self._gathered[name, proto.name] = rows
                weight += rows
            elif name in self._constants:
                self._weights[self._stored.get(name, name)] = self._read(name)
                weight += self._read(name)
            elif proto.op_type in GATHERS and position == 0:
                activation += self._tensors[outputs[0]].bytes
            else:
                activation += self._read(name)
        activation += sum(self._tensors[name].bytes for name in outputs)
        return Node(proto.name, proto.op_type, kind, product, operations, weight, activation)

    def _work(self, proto: onnx.NodeProto, inputs: list[str], outputs: list[str]) -> tuple[str, int, Product | None]:
        """Class, operations of vector units, matrix product."""
        name, elements = graph.operator(proto), self._tensors[outputs[0]].elements
        if name in PRODUCTS:
            kind = "gemm" if self._constants.intersection(inputs[:2]) else "attention"
            # Gemm's bias is one addition an element of the result.
            return kind, elements if len(inputs) > 2 else 0, self._product(proto, inputs, outputs[0])
        if name == "Conv":
            return "gemm", elements if len(inputs) > 2 else 0, self._convolution(inputs, outputs[0])
        if name in ("Softmax", "LogSoftmax"):
            return "attention", SOFTMAX * elements, None
        if name in NORMALIZATIONS:
            return "normalization", NORMALIZATIONS[name] * self._tensors[inputs[0]].elements, None
        if name in ELEMENTWISE:
            return "elementwise", ELEMENTWISE[name] * elements, None
        if name in SELECTIONS:
            return "other", SELECTIONS[name] * self._tensors[inputs[0]].elements, None
        if name in GATHERS:
            return "gather", 0, None
        if name in COPIES:
            return "copy", 0, None
        self.unknown[name] += 1
        return "other", 0, None

    def _product(self, proto: onnx.NodeProto, inputs: list[str], output: str) -> Product:
        left, right = (self._tensors[name].shape for name in inputs[:2])
        turned = any(attribute.name == "transA" and attribute.i for attribute in proto.attribute)
        k = left[-2 if turned else -1]
        # A vector on the right is a matrix of one column, which the result has lost.
        n = self._tensors[output].shape[-1] if len(right) > 1 else 1
        rows = self._tensors[output].elements // n
        # One matrix on the right: all leading dimensions of the left side are rows.
        m = rows if len(right) <= 2 else self._tensors[output].shape[-2] if len(left) > 1 else 1
        return Product(m, n, k, rows // m, self._precision(inputs))

    def _convolution(self, inputs: list[str], output: str) -> Product:
        """A Conv as the product that it is: a row for each place of the result, a column for each output channel."""
        kernel, result = self._tensors[inputs[1]].shape, self._tensors[output]
        groups = self._tensors[inputs[0]].shape[1] // kernel[1]
        channels = kernel[0] // groups
        places = result.elements // kernel[0]
        return Product(places, channels, math.prod(kernel[1:]), groups, self._precision(inputs))

    def _precision(self, inputs: list[str]) -> str:
        kinds = {STORED.get(self._tensor(name).kind, self._tensor(name).kind) for name in inputs[:2]}
        # Where one side alone is quantised, the other's type computes.
        return min(kinds, key=lambda kind: WIDEST_FIRST.get(kind, -1))

    def _tensor(self, name: str) -> Tensor:
        """The tensor as it is stored."""
        return self._tensors[self._stored.get(name, name)]

    def _read(self, name: str) -> int:
        """Bytes of reading a tensor: of its stored form if a DequantizeLinear made it."""
        return self._tensor(name).bytes


def products(work: Work) -> list[tuple[Product, str, int]]:
    """Equal products together: (product, class, how many nodes), the largest share of the operations first."""
    found = Counter((node.product, node.kind) for node in work.nodes if node.product)
    return sorted(
        ((product, kind, nodes) for (product, kind), nodes in found.items()),
        key=lambda entry: (-entry[0].flops * entry[2], dataclasses.astuple(entry[0])),
    )

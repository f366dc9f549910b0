"""Floating point variants of a graph. Their inputs and outputs are FP32: the casts at the boundary are on purpose, so
that every runtime and precision is fed and compared alike. Of a decoder's forward pass the logits are; its cache has
the type that the graph computes in, since a step reads what the one before wrote, and nobody else does."""

from __future__ import annotations

import re
from collections.abc import Iterator

import numpy as np
import onnx
from onnx import TensorProto, numpy_helper

from ceilings.errors import CellFailure
from ceilings.graphs import graph, hollow

PRECISIONS = ("fp32", "fp16", "bf16")
BF16_OPSET = 17
"""First operator set whose LayerNormalization exists, and takes bfloat16 like the operators around it."""


LOGITS = "logits"
"""What of a decoder's forward pass stays FP32."""

RMS_NORM = (("Pow",), ("ReduceMean",), ("Add",), ("Sqrt",), ("Div", "Reciprocal"), ("Mul",))
"""Operators of a normalisation by the root of a mean of squares, as the TorchScript exporter writes it."""

WIDENED = "_cast_to_fp32_node"
"""How ONNX Runtime's converter names the casts before what stays in FP32."""

MASK_ELEMENTS = 1 << 20
"""Constants of more elements are weights and no masks."""

OTHER_FLOATS = (TensorProto.FLOAT16, TensorProto.BFLOAT16, TensorProto.DOUBLE)
TYPE_ATTRIBUTES = ("to", "dtype", "stash_type", "softmax_precision")
"""Attributes that name an element type: of Cast, of what makes constants and random numbers, of normalisations."""

QUANTIZED = re.compile(r"Quantize|QLinear|Integer|^Q(Gemm|Attention|Embed|MoE|Ordered)|NBits|Bnb4|FpQ4|DequantizeBFP")
"""Operators of quantised graphs, of ONNX and of ONNX Runtime."""

NARROW = re.compile(r"FLOAT8|FLOAT4|INT4|INT2")
"""Element types that only quantised weights have."""


def convert(model: onnx.ModelProto, precision: str) -> tuple[onnx.ModelProto, dict[str, int]]:
    """A graph that computes in one floating point type.

    Args:
        model: A graph in floating point.
        precision: One of ``PRECISIONS``.

    Returns:
        The graph and what was done: ``clamped`` counts mask constants that were brought into range, ``kept_in_fp32``
        the operators that do not have the type in this operator set and stay between casts.

    Raises:
        CellFailure: The graph is quantised, its operator set is too old for the type, or a part of it has no form in
            the type.
    """
    refuse_quantized(model)
    model = widen(model)
    if precision == "fp32":
        return model, {"clamped": 0, "kept_in_fp32": 0}
    if precision == "bf16" and graph.opset(model) < BF16_OPSET:
        raise CellFailure(
            "unsupported",
            f"bf16 needs opset {BF16_OPSET} or later, the graph has {graph.opset(model)}; raise the opset",
        )
    clamped = hollow.with_shapes(model)
    changed = clamp_masks(clamped, precision)
    half = _to_fp16(clamped, _without(model, precision), graph.is_step(model))
    if precision == "bf16":
        exact = hollow.with_shapes(model)  # the converter works in place
        clamp_masks(exact, precision)
        _to_bf16(half, dict(_float_tensors(exact)))
    _check_types(half, model, precision)
    widened = {node.output[0] for node in half.graph.node if node.name.endswith(WIDENED)}
    kept = sum(not widened.isdisjoint(node.input) for node in half.graph.node)
    return half, {"clamped": changed, "kept_in_fp32": kept}


def refuse_quantized(model: onnx.ModelProto) -> None:
    """Refuse a graph that is quantised already: no precision of a study says what it computes in.

    Raises:
        CellFailure: Names an operator or a tensor that says so.
    """
    nodes = (node for here in hollow.graphs(model) for node in here.node)
    if node := next((node for node in nodes if QUANTIZED.search(node.op_type)), None):
        what = f"{node.op_type} {node.name}".strip()
    elif tensor := next((t for t in hollow.tensors(model) if NARROW.search(_name(t.data_type))), None):
        what = f"{tensor.name or 'a constant'} is {_name(tensor.data_type).lower()}"
    else:
        return
    raise CellFailure(
        "unsupported",
        f"the graph is quantised already ({what}), so that none of its variants would be what its precision says; "
        "name the floating point file that it was made from",
    )


def other_floats(model: onnx.ModelProto) -> list[str]:
    """The floating point types other than FP32 that a graph stores, casts to, reads or writes, as ONNX names them."""
    kinds = {kind for kind in OTHER_FLOATS for _ in _of_type(model, kind)}
    return [_name(kind).lower() for kind in OTHER_FLOATS if kind in kinds]


def widen(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy that stores, computes, reads and writes FP32 in place of FP16, BF16 and FP64.

    What FP32 does not hold, such as a mask of FP64's lowest number, becomes its nearest finite number.
    """
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    for kind in OTHER_FLOATS:
        for item in list(_of_type(copy, kind)):
            if isinstance(item, TensorProto):
                _store_as_fp32(item)
            elif isinstance(item, onnx.AttributeProto):
                item.i = TensorProto.FLOAT
            else:
                item.elem_type = TensorProto.FLOAT
    return copy


def _of_type(model: onnx.ModelProto, kind: int) -> Iterator[TensorProto | onnx.AttributeProto | onnx.TypeProto.Tensor]:
    """Everything in a graph that says an element type, and says this one."""
    for here in hollow.graphs(model):
        attributes = [attribute for node in here.node for attribute in node.attribute]
        sparse = [*here.sparse_initializer, *(a.sparse_tensor for a in attributes if a.HasField("sparse_tensor"))]
        tensors = [*here.initializer, *(tensor.values for tensor in sparse)]
        tensors += [tensor for a in attributes for tensor in (*((a.t,) if a.HasField("t") else ()), *a.tensors)]
        yield from (tensor for tensor in tensors if tensor.data_type == kind)
        yield from (a for a in attributes if a.name in TYPE_ATTRIBUTES and a.i == kind)
        types = [value.type for value in (*here.input, *here.output, *here.value_info)]
        types += [a.tp for a in attributes if a.HasField("tp")]
        yield from (found for found in map(_tensor_type, types) if found.elem_type == kind)


def _tensor_type(kind: onnx.TypeProto) -> onnx.TypeProto.Tensor:
    """The tensor's type in the type of a tensor, of a sequence or of something optional."""
    while (name := kind.WhichOneof("value")) in ("sequence_type", "optional_type"):
        kind = getattr(kind, name).elem_type
    return kind.sparse_tensor_type if name == "sparse_tensor_type" else kind.tensor_type


def _store_as_fp32(tensor: TensorProto) -> None:
    value = numpy_helper.to_array(tensor)
    with np.errstate(over="ignore"):
        narrow = np.asarray(value.astype(np.float32))
    largest = np.finfo(np.float32).max
    beyond = np.isinf(narrow) & np.isfinite(value)
    narrow = np.where(beyond, np.copysign(largest, narrow), narrow).astype(np.float32)
    tensor.CopyFrom(numpy_helper.from_array(narrow, tensor.name))


def _name(kind: int) -> str:
    return TensorProto.DataType.Name(kind)


def clamp_masks(model: onnx.ModelProto, precision: str) -> int:
    """Bring constants that stand for minus infinity into the range of a narrower type, in place.

    A mask constant at the very end of the range becomes an infinity as soon as a score is added to it, and a row of
    infinities gives NaN after softmax. Half the range is still zero after softmax, and adding to it cannot overflow.
    Of a matrix, only what the type cannot hold is such a constant: a causal mask, say.

    Args:
        model: An FP32 graph.
        precision: ``fp16`` or ``bf16``.

    Returns:
        How many constants were changed.
    """
    changed, largest = 0, _largest(precision)
    limit = largest / 2
    for _, tensor in _float_tensors(model):
        elements = int(np.prod(tensor.dims))
        if not 0 < elements <= MASK_ELEMENTS:
            continue
        value = numpy_helper.to_array(tensor)
        outside = ~(np.abs(value) <= (limit if elements == 1 else largest)) & ~np.isnan(value)
        if np.any(outside):
            held = np.where(outside, np.copysign(limit, value), value).astype(np.float32)
            tensor.CopyFrom(numpy_helper.from_array(held, tensor.name))
            changed += 1
    return changed


def _largest(precision: str) -> float:
    import ml_dtypes

    return float(ml_dtypes.finfo(np.float16 if precision == "fp16" else ml_dtypes.bfloat16).max)


def _without(model: onnx.ModelProto, precision: str) -> list[str]:
    """Nodes that take FP32 and not this type in the graph's operator set, such as a Conv in BF16 before 22."""
    wanted = {"fp16": "tensor(float16)", "bf16": "tensor(bfloat16)"}[precision]
    opset, found = graph.opset(model), []
    for node in (node for here in hollow.graphs(model) for node in here.node if not node.domain):
        try:
            schema = onnx.defs.get_schema(node.op_type, opset, "")
        except onnx.defs.SchemaError:  # too new or too old for this installation: left to the runtimes
            continue
        allowed = {
            constraint.type_param_str: set(constraint.allowed_type_strs) for constraint in schema.type_constraints
        }
        for formals, names in ((schema.inputs, node.input), (schema.outputs, node.output)):
            # The last formal parameter stands for all that follow; what is left out has no name.
            used = [formals[min(index, len(formals) - 1)].type_str for index, name in enumerate(names) if name]
            if any("tensor(float)" in allowed.get(kind, ()) and wanted not in allowed[kind] for kind in used):
                found.append(node.name)
                break
    return found


def _to_fp16(model: onnx.ModelProto, without: list[str], step: bool) -> onnx.ModelProto:
    """ONNX Runtime's converter, with casts to keep the inputs and outputs; it needs the shapes that it is not to infer,
    because inference of its own could not serialise a large graph."""
    from onnxruntime.transformers import float16
    from onnxruntime.transformers.onnx_model import OnnxModel

    # No CPU has an ArgMax of half precision, and of bfloat16 nothing has: it reads the logits as they come out.
    kept = [node.name for node in model.graph.node if node.op_type == "ArgMax"] + _norms(model) if step else []
    # Its rounding goes over each weight a dozen times.
    slow, float16.convert_np_to_float16 = float16.convert_np_to_float16, lambda value, *_: rounded(value)
    try:
        half = float16.convert_float_to_float16(
            model,
            keep_io_types=[LOGITS] if step else True,
            disable_shape_infer=True,
            node_block_list=[*without, *kept],
        )
    finally:
        float16.convert_np_to_float16 = slow
    # A tensor that two nodes read in FP32 is cast for each of them, by the same name.
    nodes = {node.output[0]: node for node in half.graph.node}
    if len(nodes) < len(half.graph.node):
        unique = list(nodes.values())
        del half.graph.node[:]
        half.graph.node.extend(unique)
    # Its casts of inputs stand at the end.
    OnnxModel.graph_topological_sort(half.graph)
    return half


def rounded(value: np.ndarray) -> np.ndarray:
    """FP32 values in FP16 as ONNX Runtime's converter rounds them: none becomes 0, and no finite one an infinity."""
    kind = np.finfo(np.float16)
    with np.errstate(over="ignore"):
        half = value.astype(np.float16)
    beyond, lost = np.isinf(half), half == 0
    if beyond.any():
        beyond &= np.isfinite(value)
        half[beyond] = np.copysign(kind.max, value[beyond])
    if lost.any():
        lost &= value != 0
        half[lost] = np.copysign(kind.smallest_subnormal, value[lost])
    return half


def _norms(model: onnx.ModelProto) -> list[str]:
    """Nodes that normalise by the root of a mean of squares, from the square to the product: as PyTorch computes them
    in half precision, since squares of a decoder's states go beyond it."""
    readers: dict[str, list[onnx.NodeProto]] = {}
    for node in model.graph.node:
        for name in node.input:
            readers.setdefault(name, []).append(node)
    found = []
    for node in model.graph.node:
        chain = [node]
        for operator in RMS_NORM[1:]:
            following = readers.get(chain[-1].output[0], [])
            if len(following) != 1 or following[0].op_type not in operator:
                break
            chain.append(following[0])
        if node.op_type in RMS_NORM[0] and len(chain) == len(RMS_NORM):
            found += [one.name for one in chain]
    return found


def _to_bf16(half: onnx.ModelProto, exact: dict[str, TensorProto]) -> None:
    """Turn an FP16 graph into a BF16 one, in place: the same structure, values rounded from FP32 and not from FP16."""
    import ml_dtypes

    for name, tensor in _float_tensors(half, TensorProto.FLOAT16):
        value = numpy_helper.to_array(exact.get(name, tensor)).astype(ml_dtypes.bfloat16).reshape(tuple(tensor.dims))
        tensor.CopyFrom(numpy_helper.from_array(value, tensor.name))
    for here in hollow.graphs(half):
        for node in here.node:
            for attribute in node.attribute:
                # Cast writes its target as "to", the random and constant makers as "dtype".
                if attribute.name in ("to", "dtype") and attribute.i == TensorProto.FLOAT16:
                    attribute.i = TensorProto.BFLOAT16
        for value in (*here.input, *here.output, *here.value_info):
            if value.type.tensor_type.elem_type == TensorProto.FLOAT16:
                value.type.tensor_type.elem_type = TensorProto.BFLOAT16


def _check_types(converted: onnx.ModelProto, model: onnx.ModelProto, precision: str) -> None:
    """Refuse a graph whose types contradict each other, if those of the one that it was made from do not.

    Raises:
        CellFailure: A part of the graph has no form in this precision, such as a branch of an If.
    """
    try:
        hollow.infer_shapes(converted, strict=True)
    except Exception as error:  # checkers share no class of errors
        try:
            hollow.infer_shapes(model, strict=True)
        except Exception:  # what cannot be checked is left to the runtimes
            return
        raise CellFailure("unsupported", f"the graph has no {precision} form: {graph.first_line(error)}") from None


def _float_tensors(model: onnx.ModelProto, kind: int = TensorProto.FLOAT) -> Iterator[tuple[str, TensorProto]]:
    """Initialisers and node attributes of a type, each with a name that survives conversion."""
    for here in hollow.graphs(model):
        for tensor in here.initializer:
            if tensor.data_type == kind:
                yield tensor.name, tensor
        for node in here.node:
            for attribute in node.attribute:
                if attribute.type == onnx.AttributeProto.TENSOR and attribute.t.data_type == kind:
                    yield f"{node.name or node.output[0]}.{attribute.name}", attribute.t

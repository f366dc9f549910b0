"""Graphs that one file does not hold, with a limit that tiny ones exceed."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper
from onnxruntime.transformers.float16 import convert_tensor_float_to_float16

from ceilings import files
from ceilings.errors import CellFailure, UserError
from ceilings.graphs import calibration, fuse, graph, hollow, operations, precision, quantize, simplify
from ceilings.graphs.quantize import Quantization

pytestmark = pytest.mark.slow

LIMIT = 10_000
"""Bytes; the tiny graphs have some 100,000."""


@pytest.fixture
def large(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(graph, "LARGEST", LIMIT)


def test_weights_beside_a_graph_come_back(distilbert, tmp_path: Path) -> None:
    model, path = distilbert.model, tmp_path / "g.onnx"
    before = model.SerializeToString(deterministic=True)
    graph.save(model, path, LIMIT)
    assert model.SerializeToString(deterministic=True) == before, "what is saved stays as it is"
    assert path.stat().st_size < hollow.tensor_bytes(model) / 2 < graph.data_path(path).stat().st_size
    assert graph.load(path) == model
    assert {file.name for file in tmp_path.iterdir()} == {"g.onnx", "g.onnx.data"}
    session = graph.session(path, 1)
    np.testing.assert_array_equal(
        session.run(None, distilbert.feed())[0], graph.session(model, 1).run(None, distilbert.feed())[0]
    )
    structure = graph.load(path, values=False)
    assert graph.op_types(structure) == graph.op_types(model)
    assert graph.weight_products(structure) == graph.weight_products(model)
    assert hollow.tensor_bytes(structure) == hollow.tensor_bytes(model)


def test_the_digest_covers_the_weights(distilbert, tmp_path: Path) -> None:
    model, paths = distilbert.model, [tmp_path / f"{number}.onnx" for number in range(3)]
    graph.save(model, paths[0], LIMIT)
    graph.save(graph.load(paths[0]), paths[1], LIMIT)
    tensor = max(model.graph.initializer, key=hollow.nbytes)
    tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor) + np.float32(1), tensor.name))
    graph.save(model, paths[2], LIMIT)
    # Of another name, the weights lie in another file, which the graph has to name.
    digests = [{e.key: e.value for e in onnx.load(p, load_external_data=False).metadata_props} for p in paths]
    assert digests[0] == digests[1] != digests[2]
    assert len({graph.sha256(path) for path in paths}) == 3
    graph.save(model, paths[0], LIMIT)
    first = graph.sha256(paths[0])
    graph.save(distilbert.model, paths[0], LIMIT)
    assert graph.sha256(paths[0]) != first
    assert graph.nbytes(paths[0]) == paths[0].stat().st_size + graph.data_path(paths[0]).stat().st_size


def test_a_graph_that_fits_again_leaves_no_weights_behind(distilbert, tmp_path: Path) -> None:
    path = tmp_path / "g.onnx"
    graph.save(distilbert.model, path, LIMIT)
    graph.save(graph.load(path), path)
    assert not graph.data_path(path).exists() and graph.load(path) == distilbert.model
    assert files.sha256(path) == files.sha256(distilbert.simplified), "and no trace of where they were"


def test_no_graph_stands_beside_weights_of_another(distilbert, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "g.onnx"
    graph.save(distilbert.model, path, LIMIT)

    def full(*_: object) -> None:
        raise OSError("no space left")

    monkeypatch.setattr(onnx, "save", full)
    with pytest.raises(OSError, match="no space"):
        graph.save(distilbert.model, path, LIMIT)
    assert {file.name for file in tmp_path.iterdir()} == {"g.onnx.data"}


def test_weights_that_are_not_there_or_not_whole(distilbert, tmp_path: Path) -> None:
    path = tmp_path / "g.onnx"
    graph.save(distilbert.model, path, LIMIT)
    content = graph.data_path(path).read_bytes()
    graph.data_path(path).write_bytes(content[: len(content) // 2])
    with pytest.raises(UserError, match=r"g\.onnx\.data is not what was written beside"):
        graph.load(path)
    graph.data_path(path).unlink()
    with pytest.raises(UserError, match=r"has its weights in g\.onnx\.data, which is not there"):
        graph.load(path, values=False)


@pytest.mark.parametrize("place", ["../secret.bin", "/etc/passwd", "link.bin"])
def test_weights_outside_the_folder_are_refused(distilbert, tmp_path: Path, place: str) -> None:
    folder = tmp_path / "here"
    folder.mkdir()
    (tmp_path / "secret.bin").write_bytes(bytes(1 << 20))
    (folder / "link.bin").symlink_to(tmp_path / "secret.bin")
    shell, _ = hollow.emptied(distilbert.model, 1024)
    for tensor in shell.graph.initializer:
        if tensor.data_location == onnx.TensorProto.EXTERNAL:
            tensor.external_data[0].value = place
    (folder / "g.onnx").write_bytes(shell.SerializeToString())
    with pytest.raises(UserError, match="outside its folder"):
        graph.load(folder / "g.onnx")


def test_every_step_takes_weights_beside_the_graph(distilbert, ranges, tmp_path: Path, large: None) -> None:
    outcome = simplify.simplify(graph.load(distilbert.exported), distilbert.workload)
    assert outcome.simplified and outcome.model == distilbert.model
    base = tmp_path / "base.onnx"
    graph.save(outcome.model, base)
    assert graph.data_path(base).exists()
    model = graph.load(base)
    for method in ("minmax", "entropy", "percentile"):
        settings = calibration.Calibration(method, count=8, sequence=32)
        spans, _ = calibration.calibrate(base, distilbert.weights, settings, 1)
        assert spans.keys() == ranges.keys() and (spans == ranges or method != "minmax")
    for kind in ("fp32", "fp16", "bf16"):
        path = tmp_path / f"{kind}.onnx"
        graph.save(precision.convert(model, kind)[0], path)
        assert graph.data_path(path).exists()
        assert graph.load(path) == precision.convert(distilbert.model, kind)[0]
        fused = fuse.fuse(path, distilbert.weights)
        assert fused.attentions == {"fused": 2, "expected": 2}
        graph.save(fused.model, tmp_path / f"{kind}.fused.onnx")
        assert operations.count(graph.load(path, values=False), distilbert.shape) == operations.count(
            precision.convert(distilbert.model, kind)[0], distilbert.shape
        )
    for name, tolerance in (("fp32", 1e-5), ("fp16", 1e-2), ("fp32.fused", 1e-5), ("fp16.fused", 1e-2)):
        record = distilbert.check(tmp_path / f"{name}.onnx", name[:4])
        assert record["status"] == "ok" and record["relative_l2"] < tolerance
    for kind, floats in (("int8", "fp32"), ("int8", "fp16"), ("fp8", "fp32")):
        path = tmp_path / "quantised.onnx"
        done = quantize.quantize(model, ranges, kind, Quantization(), floats).model
        assert done == quantize.quantize(distilbert.model, ranges, kind, Quantization(), floats).model
        graph.save(done, path)
        record = distilbert.check(path, kind, base)
        assert record["status"] == "ok" and len(record["layers"]) == 14
    unsigned = quantize.unsigned(quantize.quantize(model, ranges, "int8", Quantization()).model)
    assert quantize.integer_kernels(unsigned) == {"integer": 12, "float": 2}


def test_a_report_tells_of_both_files(distilbert, tmp_path: Path, large: None) -> None:
    path = tmp_path / "g.onnx"
    graph.save(distilbert.model, path)
    graph.report(tmp_path / "g.json", path, {"graph": distilbert.exported})
    record = files.read_json(tmp_path / "g.json")
    assert record["bytes"] == graph.nbytes(path) and record["nodes"] == len(distilbert.model.graph.node)
    with graph.made(tmp_path / "g.json", path, precision="fp16"):
        raise CellFailure("unsupported", "it has no fp16 form")
    assert path.read_bytes() == b"" and not graph.data_path(path).exists()
    record = files.read_json(tmp_path / "g.json")
    assert (record["status"], record["precision"]) == ("failed", "fp16")
    with pytest.raises(CellFailure, match="it has no fp16 form"):
        graph.load(path)


def test_weights_are_rounded_to_fp16_as_the_converter_rounds_them() -> None:
    rng = np.random.default_rng(0)
    edges = [0.0, -0.0, 1e-9, -1e-9, 2.9e-8, 2.0**-25, 5.9e-8, 5.97e-8, 6e-5, 65504, 65519, 65520, -7e4, 3e38, np.inf]
    value = np.concatenate([np.float32(edges), rng.normal(0, 1e-6, 500), rng.normal(0, 5e4, 500)]).astype(np.float32)
    tensor = numpy_helper.from_array(value, "w")
    expected = numpy_helper.to_array(convert_tensor_float_to_float16(tensor))
    assert np.array_equal(precision.rounded(value).view(np.uint16), expected.view(np.uint16))

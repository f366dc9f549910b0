"""The program that lets ONNX Runtime keep an engine, of a graph that could not be made."""

from __future__ import annotations

import argparse
import types

import pytest
from unit.runtimes.workloads import CLASSIFIER

import build_engine_cache
from ceilings import SCHEMA_VERSION
from ceilings import host as hosts
from ceilings.artifacts import made
from ceilings.engines import cache
from ceilings.errors import CellFailure
from ceilings.files import read_json


def test_the_failure_of_the_graph_is_that_of_the_engine_and_of_its_cells(tmp_path, monkeypatch):
    monkeypatch.setattr(hosts, "detect", lambda _: types.SimpleNamespace(device=lambda kind: "nvidia-double"))
    graph, output = tmp_path / "fp8.onnx", tmp_path / "b1-s8.cache.json"
    with made(tmp_path / "fp8.json", [graph], "graph"):
        raise CellFailure("missing-scales", "no ranges")
    CLASSIFIER.write(tmp_path)
    folder = tmp_path / "a/b/c/b1-s8.cache"
    arguments = argparse.Namespace(
        device="nvidia-double",
        precision="fp8",
        shape="b1-s8",
        graph=graph,
        workload=tmp_path / "workload.json",
        spec={"optimization_level": 3, "workspace_mb": None},
        folder=folder,
        output=output,
    )
    build_engine_cache.work(arguments)
    record = read_json(output)
    assert (record["schema_version"], record["shape"]) == (SCHEMA_VERSION, "b1-s8") and folder.is_dir()
    with pytest.raises(CellFailure, match="no engine: no ranges") as caught:
        cache.load(output, device="nvidia-double", versions={})
    assert caught.value.kind == "missing-scales"

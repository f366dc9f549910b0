"""Trees of several machines become one: what is copied, what is in conflict, what is refused."""

import hashlib
import json
import re
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path, PurePosixPath

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper
from unit import planted_overlap, planted_records, planted_searches, planted_shapes

from ceilings import records
from ceilings.errors import UserError
from ceilings.graphs import graph
from ceilings.report.tables.collect import read_run
from ceilings.study.merging import merge, unit_of

sys.path.insert(0, str(Path(__file__).parents[1] / "report"))
import planted_study as planted

GPU, OTHER = planted.GPU, "nvidia-h100"
SHAPES = [(1, 128), (8, 128)]


def tree(folder: Path, device: str = GPU, **changes: object) -> Path:
    """The results folder of a machine that measured two cells."""
    maker = planted.StudyMaker(folder, runs=2)
    maker.measure(device, [("tensorrt", "fp16")], SHAPES)
    for cell in maker.cells:
        for run in (1, 2):
            maker.change(cell, run, **changes)
    return folder / "results"


def all_files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def quietly(*given: Path, into: Path):
    return merge(given, into, say=lambda line: None)


def test_two_machines_become_one_and_keep_every_byte(tmp_path):
    first, second = tree(tmp_path / "a"), tree(tmp_path / "b", OTHER)
    with tarfile.open(tmp_path / "b.tar.gz", "w:gz") as archive:
        archive.add(second, "results")
    merged = quietly(first, tmp_path / "b.tar.gz", into=tmp_path / "all")
    assert merged.copied == {GPU: 4, OTHER: 4} and not merged.conflicts and not merged.same
    assert all_files(tmp_path / "all") == all_files(first) | all_files(second)
    again = quietly(first, second, into=tmp_path / "all")
    assert (again.copied, again.same, again.conflicts) == ({}, 8, [])


def test_a_search_for_the_best_batch_travels_and_is_held_against_its_path(tmp_path):
    first = tree(tmp_path / "a")
    folder = first / "best_batch/cpu-planted/onnxruntime-cpu/bert/fp32"
    planted_searches.write(folder, most=4)
    quietly(first, into=tmp_path / "all")
    assert (tmp_path / "all" / folder.relative_to(first) / "s32.json").is_file()
    (folder / "s32.json").rename(folder / "s64.json")
    with pytest.raises(UserError, match="is the record of rest s32, not of s64"):
        quietly(first, into=tmp_path / "other")


def test_copies_beside_compute_come_with_their_capture_and_only_to_their_place(tmp_path):
    place = "/".join((*planted_overlap.CELL.values(), "b8-i224"))
    for folder, shape in (("a", "b8-i224"), ("b", "b1-i224")):
        results = tmp_path / folder / "results/overlap" / place.replace("b8-i224", shape)
        planted_overlap.write(results, processes=2)
        (results / "capture.sqlite").write_text("a capture")
    merged = quietly(tmp_path / "a", into=tmp_path / "all")
    assert merged.copied == {planted_overlap.CELL["device"]: 4} and not merged.conflicts
    with pytest.raises(UserError, match="is the record of shape b8-i224, not of b1-i224"):
        quietly(tmp_path / "b", into=tmp_path / "all")


def test_changing_shapes_come_with_their_buckets_and_only_to_their_place(tmp_path):
    place = "/".join(planted_shapes.CELL.values())
    planted_shapes.write(tmp_path / "a/results/changing" / place, processes=2)
    merged = quietly(tmp_path / "a", into=tmp_path / "all")
    assert merged.copied == {planted_shapes.CELL["device"]: 5} and not merged.conflicts
    planted_shapes.write(tmp_path / "b/results/changing" / place.replace("mixed", "other"), processes=2)
    with pytest.raises(UserError, match="is the record of sequence mixed, not of other"):
        quietly(tmp_path / "b", into=tmp_path / "all")


def test_a_conflict_names_both_sides_and_keeps_the_target(tmp_path):
    first = tree(tmp_path / "a")
    other = planted_records.PROVENANCE | {"project_revision": "fedcba987654"}
    second = tree(tmp_path / "b", provenance=other, gpu={"name": "H200", "driver": "590.1"})
    third = tree(tmp_path / "c")
    quietly(first, into=tmp_path / "all")
    before = all_files(tmp_path / "all")
    merged = quietly(second, third, into=tmp_path / "all")
    assert all_files(tmp_path / "all") == before
    assert (merged.copied, merged.same, len(merged.conflicts)) == ({}, 4, 4)
    conflict = merged.conflicts[0]
    assert conflict.path == f"benchmarks/{GPU}/tensorrt/distilbert/fp16/b1-s128/run1.json"
    assert "revision 0123456789ab" in conflict.kept and str(tmp_path / "all") in conflict.kept
    assert conflict.other == f"{second} ({GPU}, revision fedcba987654, driver 590.1)"
    # Of two trees of one merge, the first is kept and named.
    merged = quietly(first, second, into=tmp_path / "new")
    assert [one.kept.split(" ")[0] for one in merged.conflicts] == [str(first)] * 4


def broken(path: Path) -> None:
    path.write_text(path.read_text().replace("0123456789ab", "0123456789ac"))


BAD = {
    "digest": broken,
    "schema version": lambda path: planted_records.edit(path, schema_version=1),
    "kind": lambda path: planted_records.edit(path, kind="parity"),
    "schema": lambda path: planted_records.edit(path, run=0),
    "no JSON": lambda path: path.write_text("{"),
    "no record": lambda path: path.write_text("{}"),
    "another cell": lambda path: records.write(
        path, "run", {**records.read(path), "cell": {**records.read(path)["cell"], "precision": "fp32"}}
    ),
}


@pytest.mark.parametrize("spoil", BAD.values(), ids=BAD)
def test_a_record_that_cannot_be_believed_refuses_everything(tmp_path, spoil):
    good, bad = tree(tmp_path / "a"), tree(tmp_path / "b", OTHER)
    spoil(bad / "benchmarks" / OTHER / "tensorrt" / "distilbert" / "fp16" / "b8-s128" / "run1.json")
    with pytest.raises(UserError, match=r"b8-s128/run1\.json"):
        quietly(good, bad, into=tmp_path / "all")
    assert not (tmp_path / "all").exists()


def test_an_artifact_is_held_against_its_report(tmp_path):
    results = tree(tmp_path / "a")
    weights = results / "models" / "m" / "weights"
    weights.mkdir(parents=True)
    (weights / "model.safetensors").write_bytes(b"weights")
    (weights / "config.json").write_text('{"schema_version": "of somebody else"}')  # is no record
    digest = hashlib.sha256(b"weights").hexdigest()
    records.write(weights / "provenance.json", "weights", planted_records.WEIGHTS | {"sha256": digest})
    assert quietly(results, into=tmp_path / "all").copied == {GPU: 4, "": 3}
    (weights / "model.safetensors").write_bytes(b"other")
    with pytest.raises(UserError, match=r"model\.safetensors is not what its report provenance\.json vouches for"):
        quietly(results, into=tmp_path / "new")
    shutil.rmtree(weights)


def large_graph(folder: Path, seed: int = 0) -> Path:
    """The path of a graph with its weights beside it and its report, as the pipeline writes what exceeds 2 GB."""
    weights = np.random.default_rng(seed).random((64, 64), np.float32)
    value = [helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [64, 64]) for name in ("x", "y")]
    node = helper.make_node("MatMul", ["x", "w"], ["y"])
    built = helper.make_graph([node], "g", value[:1], value[1:], [numpy_helper.from_array(weights, "w")])
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "large.onnx"
    graph.save(helper.make_model(built, opset_imports=[helper.make_opsetid("", 17)]), path, limit=1000)
    graph.report(path.with_suffix(".json"), path, {})
    return path


def truncated(path: Path) -> None:
    data = graph.data_path(path)
    data.write_bytes(data.read_bytes()[:-1])


def changed_byte(path: Path) -> None:
    data = graph.data_path(path)
    data.write_bytes(data.read_bytes()[:-1] + bytes([data.read_bytes()[-1] ^ 1]))


def without_digest(path: Path) -> None:
    """As another program writes it: nothing vouches for the weights."""
    shell = onnx.load(path, load_external_data=False)
    del shell.metadata_props[:]
    onnx.save(shell, path)
    graph.report(path.with_suffix(".json"), path, {})


def in_one_file(path: Path) -> None:
    """The graph holds its weights, and those of an earlier one are left beside it."""
    content = graph.data_path(path).read_bytes()
    graph.save(graph.load(path), path)
    graph.report(path.with_suffix(".json"), path, {})
    graph.data_path(path).write_bytes(content)


DATA = {
    "truncated": (truncated, r"large\.onnx\.data is not what was written beside .*large\.onnx; make it anew there"),
    "a changed byte": (changed_byte, r"large\.onnx\.data is not what was written beside"),
    "of another graph": (
        lambda path: shutil.copy(graph.data_path(large_graph(path.parents[3] / "other", 1)), graph.data_path(path)),
        r"large\.onnx\.data is not what was written beside",
    ),
    "missing": (
        lambda path: graph.data_path(path).unlink(),
        r"has its weights in large\.onnx\.data, which is not beside",
    ),
    "no graph": (lambda path: path.unlink(), r"large\.onnx\.data holds weights of large\.onnx, which is not beside it"),
    "an empty graph": (lambda path: path.write_bytes(b""), r"large\.onnx\.data holds weights of large\.onnx"),
    "no digest": (without_digest, r"large\.onnx has no digest of large\.onnx\.data"),
    "left over": (in_one_file, r"large\.onnx\.data is beside .*large\.onnx, which has its weights elsewhere"),
}


@pytest.mark.parametrize(("spoil", "message"), DATA.values(), ids=DATA)
def test_weights_beside_a_graph_are_held_against_its_digest(tmp_path, spoil, message):
    results = tree(tmp_path / "a")
    spoil(large_graph(results / "onnx" / "m"))
    with pytest.raises(UserError, match=message):
        quietly(results, into=tmp_path / "all")
    assert not (tmp_path / "all").exists()


def test_weights_beside_a_graph_come_with_it(tmp_path):
    results = tree(tmp_path / "a")
    path = large_graph(results / "onnx" / "m")
    assert quietly(results, into=tmp_path / "all").copied == {GPU: 4, "": 3}
    graph.verify_data(tmp_path / "all" / path.relative_to(results), "")
    other = tree(tmp_path / "b", OTHER)
    large_graph(other / "onnx" / "m", seed=1)
    merged = quietly(other, into=tmp_path / "all")
    assert [one.path for one in merged.conflicts] == [f"onnx/m/large.{end}" for end in ("json", "onnx", "onnx.data")]
    graph.verify_data(tmp_path / "all" / path.relative_to(results), "")


def test_what_is_private_or_made_from_all_records_stays_behind(tmp_path):
    results = tree(tmp_path / "a")
    for name in (
        "summary.md",
        "plan.json",
        "logs/x.log",
        "tables/cells.csv",
        f"traces/{GPU}/r/m/fp16/b1-s8.nsys-rep",
        f"traces/{GPU}/r/m/fp16/b1-s8.qdstrm",
        f"traces/{GPU}/.x.py",
    ):
        (results / name).parent.mkdir(parents=True, exist_ok=True)
        (results / name).write_text("x")
    quietly(results, into=tmp_path / "all")
    assert {name.split("/")[0] for name in all_files(tmp_path / "all")} == {"benchmarks"}
    assert json.loads(next((tmp_path / "all").rglob("run1.json")).read_text())["kind"] == "run"


RUNS = Path("benchmarks", GPU, "tensorrt", "distilbert", "fp16", "b1-s128")


def processes(folder: Path, kept: tuple[int, ...], seed: int = 0, **changes: object) -> Path:
    """The results folder of a machine that measured one cell, of which some processes are left."""
    maker = planted.StudyMaker(folder, runs=5, seed=seed)
    maker.measure(GPU, [("tensorrt", "fp16")], [(1, 128)])
    for run, path in enumerate(maker.cells[0]["runs"], 1):
        if run in kept:
            maker.change(maker.cells[0], run, **changes)
        else:
            Path(path).unlink()
    return folder / "results"


OTHER_REVISION = {"provenance": planted_records.PROVENANCE | {"project_revision": "fedcba987654"}}


@pytest.mark.parametrize(
    "changes",
    [
        OTHER_REVISION,
        {"provenance": planted_records.PROVENANCE | {"project_revision": None}},
        {"provenance": planted_records.PROVENANCE | {"packages": {"torch": "2.14.0"}}},
        {"gpu": {"name": "H200", "driver": "590.1"}},
        {"protocol": planted.PROTOCOL | {"precision": 0.5}},
    ],
    ids=["revision", "unknown revision", "package", "driver", "protocol"],
)
@pytest.mark.parametrize("kept", [(1, 2, 3, 4, 5), (3, 4, 5)])
def test_processes_of_two_conditions_never_share_a_cell(tmp_path, changes, kept):
    first, second = processes(tmp_path / "a", (1, 2)), processes(tmp_path / "b", kept, seed=1, **changes)
    merged = quietly(first, second, into=tmp_path / "all")
    assert all_files(tmp_path / "all") == all_files(first)
    assert [one.path for one in merged.conflicts] == [str(RUNS / f"run{run}.json") for run in kept]
    assert all(str(first) in one.kept and str(second) in one.other for one in merged.conflicts)


def test_processes_of_one_code_driver_and_protocol_are_joined(tmp_path):
    protocol = {"protocol": planted.PROTOCOL}
    first, second = processes(tmp_path / "a", (1, 2), **protocol), processes(tmp_path / "b", (3, 4, 5), **protocol)
    merged = quietly(first, second, into=tmp_path / "all")
    assert not merged.conflicts and all_files(tmp_path / "all") == all_files(first) | all_files(second)
    # A merge that was cut off goes on, whatever the conditions: all is of one tree.
    (tmp_path / "all" / RUNS / "run4.json").unlink()
    assert quietly(first, second, into=tmp_path / "all").copied == {GPU: 1}


def test_a_capture_and_what_is_made_of_it_are_of_one_tree(tmp_path):
    first, second = tree(tmp_path / "a"), tree(tmp_path / "b")
    place = Path("traces", GPU, "tensorrt", "distilbert", "fp16")
    for results, names in ((first, ["b1-s128.sqlite"]), (second, ["b1-s128.torch.json", "b1-s128.perfetto.json"])):
        (results / place).mkdir(parents=True)
        for name in names:
            (results / place / name).write_text("{}")
    merged = quietly(first, second, into=tmp_path / "all")
    assert [path.name for path in (tmp_path / "all" / place).iterdir()] == ["b1-s128.sqlite"]
    assert [one.path for one in merged.conflicts if "traces" in one.path] == [
        str(place / "b1-s128.perfetto.json"),
        str(place / "b1-s128.torch.json"),
    ]


TOGETHER = (
    ("traces/d/r/m/fp16/b1-s8.sqlite", "traces/d/r/m/fp16/b1-s8.budget.json", "traces/d/r/m/fp16/b1-s8.layers.json"),
    ("onnx/m/int8.half.onnx", "onnx/m/int8.half.onnx.data", "onnx/m/int8.half.json", "parity/m/int8.half.json"),
    ("models/m/weights/model.safetensors", "models/m/weights/workload.json", "models/m/weights/tokenizer/vocab.txt"),
    ("models/m/data.npz", "models/m/data.json", "models/m/data.reference.npz"),
    ("models/m/inputs/b1-s8.npz", "models/m/reference/b1-s8.npz"),
    ("engines/d/b/m/fp16/p.engine", "engines/d/b/m/fp16/p.json", "engines/d/b/m/fp16/p.timing.cache"),
    ("engines/d/b/m/fp16/b1-s8.cache.json", "engines/d/b/m/fp16/b1-s8.cache/one.engine"),
    ("calibration/m/entropy.json", "calibration/m/entropy.cache"),
    ("changing/d/r/m/fp32/s/run1.json", "changing/d/r/m/fp32/s/padded2.json", "changing/d/r/m/fp32/s/buckets.json"),
)


def test_units_are_what_belongs_together():
    units = [{unit_of(PurePosixPath(name)) for name in names} for names in TOGETHER]
    assert [len(unit) for unit in units] == [1] * len(TOGETHER) and len(set.union(*units)) == len(TOGETHER)


def test_a_floor_of_another_device_and_what_nobody_vouches_for_are_refused(tmp_path):
    results = tree(tmp_path / "a")
    maker = planted.StudyMaker(tmp_path / "a", runs=1)
    floor = maker.bound(maker.add(GPU, "tensorrt", "fp16", 1, 128), 0.1)
    quietly(results, into=tmp_path / "good")
    elsewhere = results / "floors" / OTHER / floor.relative_to(results / "floors" / GPU)
    elsewhere.parent.mkdir(parents=True)
    floor.rename(elsewhere)
    stray, junk = results / "traces" / "evil.py", results / "onnx" / "m" / "fp32.onnx"
    for path, why in ((elsewhere, f"is the record of device {GPU}"), (stray, "no file of"), (junk, "has no report")):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.exists() or path.write_text("x")
        with pytest.raises(UserError, match=f"{re.escape(str(path))} .*{why}"):
            quietly(results, into=tmp_path / "all")
        path.unlink()
    assert not (tmp_path / "all").exists()


def a_file_as_folder(target: Path) -> None:
    (target / "benchmarks").mkdir(parents=True)
    (target / "benchmarks" / GPU).write_text("x")


def a_folder_as_file(target: Path) -> None:
    (target / RUNS / "run2.json").mkdir(parents=True)


def a_dangling_link(target: Path) -> None:
    (target / RUNS).mkdir(parents=True)
    (target / RUNS / "run2.json").symlink_to("nowhere")


def a_file(target: Path) -> None:
    target.write_text("x")


@pytest.mark.parametrize("spoil", [a_file_as_folder, a_folder_as_file, a_dangling_link, a_file])
def test_a_target_that_cannot_hold_it_is_refused_before_anything_is_written(tmp_path, spoil):
    spoil(tmp_path / "all")
    before = sorted(tmp_path.rglob("*"))
    results = tree(tmp_path / "a")
    with pytest.raises(UserError, match="all"):
        quietly(results, into=tmp_path / "all")
    assert [path for path in sorted(tmp_path.rglob("*")) if path.relative_to(tmp_path).parts[0] != "a"] == before


def test_a_target_within_a_tree_or_around_it_is_refused(tmp_path):
    given = tree(tmp_path / "a")
    with pytest.raises(UserError, match=r"benchmarks lies in .*; name a folder outside as --into"):
        quietly(given, into=given / "benchmarks")
    (tmp_path / "link").symlink_to(given)
    with pytest.raises(UserError, match="link/new lies in"):
        quietly(given, into=tmp_path / "link" / "new")
    with pytest.raises(UserError, match=r"such as .*/a/results$"):
        quietly(given, into=tmp_path / "a")
    with pytest.raises(UserError, match=r"is no results folder, but holds one; name .*/a/results as --into"):
        quietly(tree(tmp_path / "b", OTHER), into=tmp_path / "a")
    assert set(tmp_path.joinpath("a").iterdir()) >= {given} and not (tmp_path / "a" / "benchmarks").exists()
    assert quietly(given, into=given).same == 4, "the same folder has it all"


def test_a_tree_without_a_file_to_merge_is_refused(tmp_path):
    (tmp_path / "a" / "benchmarks").mkdir(parents=True)
    (tmp_path / "a" / "tables").mkdir()
    (tmp_path / "a" / "tables" / "cells.csv").write_text("x")
    with pytest.raises(UserError, match=r"a holds no record and no artifact to merge; leave it out"):
        quietly(tree(tmp_path / "b"), tmp_path / "a", into=tmp_path / "all")
    assert not (tmp_path / "all").exists()


def test_an_empty_target_is_not_the_current_folder(tmp_path):
    program = Path(__file__).parents[3] / "workflow_scripts" / "merge_results.py"
    command = [sys.executable, program, tree(tmp_path / "a \u00e9"), "--into", ""]
    done = subprocess.run(command, cwd=tmp_path, check=False, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (
        2,
        "error: --into is empty; name the results folder that gets the files\n",
    )
    assert [path.name for path in tmp_path.iterdir()] == ["a \u00e9"]


def test_long_names_are_refused(tmp_path):
    results = tree(tmp_path / "a")
    (results / "models" / ("m" * 250)).mkdir(parents=True)
    (results / "models" / ("m" * 250) / "data.npz").write_text("x")
    with pytest.raises(UserError, match="is too long"):
        quietly(results, into=tmp_path / "all")


def test_a_copy_that_fails_takes_back_what_was_written(tmp_path):
    """On a real limit of the size of a file: the records pass, the weights do not."""
    results = tree(tmp_path / "a")
    data = results / "models" / "m" / "data.npz"
    data.parent.mkdir(parents=True)
    data.write_bytes(b"x" * (1 << 20))
    program = Path(__file__).parents[3] / "workflow_scripts" / "merge_results.py"
    command = f"ulimit -f 512; trap '' XFSZ; exec {sys.executable} {program} {results} --into {tmp_path / 'all'}"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=False)
    assert done.returncode == 2 and "File too large" in done.stderr and "Traceback" not in done.stderr
    assert not (tmp_path / "all").exists()


def test_every_conflict_can_be_printed(tmp_path):
    first, second = tmp_path / "a", tmp_path / "b"
    for seed, folder in enumerate((first, second)):
        planted.StudyMaker(folder, runs=3, seed=seed).measure(GPU, [("tensorrt", "fp16")], planted.SHAPES)
    program = Path(__file__).parents[3] / "workflow_scripts" / "merge_results.py"
    command = [sys.executable, program, first, second, "--into", tmp_path / "all"]
    few, all_of_them = (
        subprocess.run([*command, *more], capture_output=True, text=True, check=False)
        for more in ([], ["--all-conflicts"])
    )
    assert few.returncode == all_of_them.returncode == 1
    assert few.stdout.count("conflict: ") == 20 and "and 4 more: --all-conflicts" in few.stdout
    assert all_of_them.stdout.count("conflict: ") == 24


@pytest.mark.parametrize(("recorded", "remedy"), [(True, "bring it again"), (False, "run `snakemake")])
def test_an_edited_record_has_a_remedy_that_works_here(tmp_path, recorded, remedy):
    maker = planted.StudyMaker(tmp_path, runs=1)
    cell = maker.add(OTHER, "tensorrt", "fp16", 1, 128) | {"recorded": recorded}
    broken(Path(cell["runs"][0]))
    with pytest.raises(UserError, match=rf"run1\.json was changed since it was written .*{remedy}"):
        read_run(cell["runs"][0], cell, maker.plan())

"""Trees of several machines become one: what is copied, what is in conflict, what is refused."""

import hashlib
import json
import shutil
import sys
import tarfile
from pathlib import Path

import pytest
from unit import planted_records

from ceilings import records
from ceilings.errors import UserError
from ceilings.study.merging import merge

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


def test_what_is_private_or_made_from_all_records_stays_behind(tmp_path):
    results = tree(tmp_path / "a")
    for name in ("summary.md", "plan.json", "logs/x.log", "tables/cells.csv", f"traces/{GPU}/r/m/fp16/b1-s8.nsys-rep"):
        (results / name).parent.mkdir(parents=True, exist_ok=True)
        (results / name).write_text("x")
    quietly(results, into=tmp_path / "all")
    assert {name.split("/")[0] for name in all_files(tmp_path / "all")} == {"benchmarks"}
    assert json.loads(next((tmp_path / "all").rglob("run1.json")).read_text())["kind"] == "run"

"""No record is believed that is damaged, edited, of another kind or version; and none ends in a traceback."""

from __future__ import annotations

import copy
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from unit import planted_records
from unit.record_samples import SAMPLES, edited

from ceilings import SCHEMA_VERSION, records, schemas
from ceilings.errors import UserError

GONE = object()
VALUES = (GONE, None, "x", "\ud800", True, -1, -1.5, 1e308, 10**400, [], {}, [[]], {"x": None})
"""What stands in place of a part of a record, one after the other."""


@pytest.fixture(scope="module")
def originals(tmp_path_factory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("records")
    return {kind: make(folder / kind) for kind, make in SAMPLES.items()}


@pytest.fixture
def sample(originals, kind, tmp_path) -> Path:
    """A record that a test may damage."""
    path = tmp_path / originals[kind].name
    path.write_bytes(originals[kind].read_bytes())
    return path


every_kind = pytest.mark.parametrize("kind", sorted(SAMPLES))


def test_every_kind_has_a_sample():
    assert set(SAMPLES) == set(schemas.KINDS)


def refusal(path: Path, kind: str) -> str | None:
    """The one line with which a record is refused; None if it is read."""
    try:
        records.read(path, kind)
    except UserError as error:
        message = str(error)
        assert message.startswith(f"{path} ") and "\n" not in message and len(message) < 700, message
        assert message.endswith(f"; delete it and run `snakemake --cores 1 {path}`"), message
        return message
    return None


def mutations(value: Any, place: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Places of a record: every key, and the first entry of every list."""
    parts = value.items() if isinstance(value, dict) else enumerate(value[:1]) if isinstance(value, list) else ()
    for key, part in parts:
        yield (*place, key)
        yield from mutations(part, (*place, key))


def mutated(record: Any, place: tuple[Any, ...], value: Any) -> Any:
    changed = copy.deepcopy(record)
    here = changed
    for key in place[:-1]:
        here = here[key]
    if value is GONE:
        del here[place[-1]]
    else:
        here[place[-1]] = value
    return changed


@every_kind
def test_a_whole_record_is_read(sample, kind):
    record = records.read(sample, kind)
    assert (record["kind"], record["schema_version"]) == (kind, SCHEMA_VERSION)
    text = json.dumps(dict(reversed(record.items())), indent=7)  # order and spaces say nothing
    sample.write_text(text)
    assert records.read(sample, kind) == record


@every_kind
def test_a_damaged_file_is_refused(sample, kind):
    whole = sample.read_bytes()
    other = next(one for one in schemas.KINDS if one != kind)
    contents = {
        **{f"cut at {part:.0%}": whole[: int(len(whole) * part)] for part in (0, 0.01, 0.3, 0.5, 0.9, 0.99)},
        "without its last letters": whole.rstrip()[:-1],
        "twice": whole + whole,
        "null bytes": whole[:100] + bytes(50) + whole[150:],
        "other bytes": b"\xff" + whole[1:],
        "BOM": b"\xef\xbb\xbf" + whole,
        "UTF-16": whole.decode().encode("utf-16"),
        "NaN": whole.replace(b"{", b'{"x": NaN, ', 1),
        "infinity": whole.replace(b"{", b'{"x": -Infinity, ', 1),
        "too large a number": whole.replace(b"{", b'{"x": 1e999, ', 1),
        "too long a number": whole.replace(b"{", b'{"x": 1' + b"0" * 5000 + b", ", 1),
        "a key twice": whole.replace(b"{", b'{"status": "ok", "status": "ok", ', 1),
        "nested": b'{"x": ' + b"[" * 100_000,
        "another kind": whole.replace(f'"kind": "{kind}"'.encode(), f'"kind": "{other}"'.encode()),
        "no kind": whole.replace(f'"kind": "{kind}"'.encode(), b'"kind": "magic"'),
        "an older schema": whole.replace(b'"schema_version": %d' % SCHEMA_VERSION, b'"schema_version": 1'),
        "without a seal": json.dumps({k: v for k, v in json.loads(whole).items() if k not in records.SEAL}).encode(),
        **{text: text.encode() for text in ("{}", "[]", "null", "3", '"x"', "true", "{", "x", '{"schema_version": 2}')},
    }
    assert {what: content == whole for what, content in contents.items() if content == whole} == {}
    for what, content in contents.items():
        sample.write_bytes(content)
        assert refusal(sample, kind), what


@pytest.mark.parametrize("kind", ["run", "workload"])
def test_what_is_no_file_is_refused(sample, kind):
    def instead(make):
        sample.unlink(missing_ok=True)
        make()
        message = refusal(sample, kind)
        sample.rmdir() if sample.is_dir() else None
        return message

    assert "is a folder and no file" in instead(sample.mkdir)
    assert "is no regular file" in instead(lambda: os.mkfifo(sample))
    assert "is a link to nowhere, which is not there" in instead(lambda: sample.symlink_to("nowhere"))
    assert "does not exist" in instead(lambda: None)
    if os.geteuid():
        sample.write_text("{}")
        sample.chmod(0)
        assert "cannot be read" in str(refusal(sample, kind))


@every_kind
def test_no_edit_goes_unseen(sample, kind):
    record = json.loads(sample.read_text())
    for place in mutations(record):
        for value in (GONE, None, -1, "x"):
            changed = mutated(record, place, value)
            if changed != record or type(changed) is not type(record):
                sample.write_text(json.dumps(changed))
                assert refusal(sample, kind) or json.loads(sample.read_text()) == record, (place, value)


@pytest.mark.parametrize(
    "kind",
    [
        pytest.param(kind, marks=pytest.mark.slow) if kind in ("budget", "explanation") else kind  # the largest samples
        for kind in sorted(SAMPLES)
    ],
)
def test_an_edit_with_its_digest_corrected_ends_in_no_traceback(sample, kind):
    """What of it is believed, the schema allows: its keys are there, and its numbers finite."""
    record = json.loads(sample.read_text())
    believed = 0
    for place in mutations(record):
        for value in VALUES:
            try:
                planted_records.overwrite(sample, mutated(record, place, value))
            except UnicodeEncodeError:  # no file can hold it so
                continue
            believed += refusal(sample, kind) is None
    schema = {name: value for name, value in record.items() if name not in records.SEAL}
    for name in schema:
        planted_records.overwrite(sample, mutated(record, (name,), {"x": [None]}))
        free = schemas.flaw(kind, {**schema, name: {"x": [None]}}) is None
        assert (refusal(sample, kind) is None) == free
    assert believed < 0.6 * len(VALUES) * len(list(mutations(record)))


@pytest.mark.parametrize(
    ("kind", "place", "value", "flaw"),
    [
        ("run", ("status",), "fine", "status is 'fine'; it must be ok or failed"),
        ("run", ("parity",), None, "parity is null; it must be an object"),
        ("run", ("parity", "cosine"), 1.5, "parity.cosine is 1.5; it must be at least -1 and at most 1"),
        ("run", ("parity", "relative_l2"), -1, "parity.relative_l2 is -1; it must be at least 0"),
        ("run", ("series", "latency", "latency_ns"), [], "series.latency.latency_ns is an empty list"),
        (
            "run",
            ("series", "latency", "latency_ns", 3),
            0,
            r"series.latency.latency_ns\[3\] is 0; it must be at least 1",
        ),
        ("run", ("series", "latency", "latency_ns", 3), 1.5, r"latency_ns\[3\] is 1.5; it must be a whole number"),
        ("run", ("series", "latency", "gpu_ns", 0), -5, r"series.latency.gpu_ns\[0\] is -5"),
        ("run", ("memory", "peak_rss_bytes"), 10**400, "peak_rss_bytes is a whole number of 401 digits"),
        ("quality", ("metrics", "value"), 1.5, "metrics.value is 1.5"),
        ("quality", ("metrics", "metric"), "luck", "metrics.metric is 'luck'"),
        ("quality", ("data", "rows"), 0, "data.rows is 0; it must be a whole number at least 1"),
        ("peaks", ("peaks", "read_bandwidth", "median"), 0, "peaks.read_bandwidth.median is 0; it must be above 0"),
        ("peaks", ("peaks", "read_bandwidth", "median"), 1.0, "must lie between low"),
        ("floor", ("floor", "floor_ms"), -1, "floor.floor_ms is -1; it must be above 0"),
        ("budget", ("shares", "kernel"), 7, "shares.kernel is 7"),
        ("budget", ("timeline", "operations", 0), [1, 2], "it must be a list of 5"),
        ("calibration", ("ranges", "x"), {"low": 2, "high": 1}, "ranges.x.low is 2; it must be at most high, 1"),
        ("calibration", ("ranges",), {}, "ranges is an empty object"),
        ("parity", ("relative_l2",), None, "relative_l2 is null"),
        ("parity", ("finite",), False, "finite is false; it must be true"),
        ("graph", ("graph_sha256",), "0", "graph_sha256 is '0'; it must fit"),
        ("engine", ("capabilities",), [], "capabilities is an empty list"),
        ("weights", ("source",), "found", "source is 'found'"),
        ("plan", ("tolerances", "fp32"), 0, "tolerances.fp32 is 0; it must be above 0"),
        ("plan", ("cells", 0, "runs"), "x", r"cells\[0\].runs is 'x'; it must be a list"),
        ("workload", ("inputs",), [], "inputs is an empty list; it must be a list of at least 1"),
        ("workload", ("more",), 1, "has the unknown key 'more'"),
    ],
)
def test_a_schema_says_what_is_wrong_where(sample, kind, place, value, flaw):
    edited(sample, *place, value=value)
    with pytest.raises(UserError, match=flaw):
        records.read(sample, kind)


def test_a_writer_cannot_write_what_no_reader_takes(tmp_path):
    with pytest.raises(ValueError, match="no workload record can be made of this: has no task"):
        records.write(tmp_path / "x.json", "workload", {})
    with pytest.raises(ValueError, match="Out of range float"):
        records.write(tmp_path / "x.json", "data", {"x": float("nan")})
    assert not list(tmp_path.iterdir())


def test_what_was_written_is_what_is_read(tmp_path):
    """Tuples, whole keys and letters beyond ASCII change no digest."""
    content = {"status": "ok", "source": "Straße", "available": 2, "rows": 1, "truncated": 0, "more": (1, {2: 0.1})}
    written = records.write(tmp_path / "x.json", "data", content)
    assert records.read(tmp_path / "x.json", "data") == written
    assert written["more"] == [1, {"2": 0.1}]


@pytest.mark.parametrize("letter", ["\x9b", "\x7f", "\u202e", "\u2066", "\u200b", "\ufeff", "\u2028", "\U000e0041"])
def test_letters_that_nobody_sees_are_numbers_in_the_file(letter):
    text = records.as_text({"name": f"a{letter}é"})
    assert letter not in text and "é" in text
    assert json.loads(text) == {"name": f"a{letter}é"}

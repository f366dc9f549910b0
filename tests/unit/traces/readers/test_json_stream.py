"""Events of every form of file that recorders, tools and crashes leave."""

import gzip
import json
import random
import tracemalloc

import pytest

from ceilings.errors import UserError
from ceilings.traces.readers import json_stream
from ceilings.traces.readers.json_stream import Stream

EVENTS = [
    {"ph": "X", "name": 'a "quoted" } ], {[', "ts": 1.25, "args": {"deep": [{"name": "x"}, {"ph": "y"}, [1, {}]]}},
    {"args": {"s": "}, {"}, "ts": 2, "dur": 3, "ph": "X", "name": "back\\slash"},
    {"name": "ü ☃", "ph": "i"},
    {"ph": "X", "name": "line\nbreak", "args": {}},
]


def read(path):
    stream = Stream(path, dict)
    events = [event for batch in stream.batches() for event in batch]
    return stream, events


@pytest.fixture(params=[64, 200, 1 << 22], ids=["blocks of 64", "blocks of 200", "one block"])
def blocks(request, monkeypatch):
    monkeypatch.setattr(json_stream, "BLOCK", request.param)


@pytest.mark.parametrize("indent", [None, 1, 4])
@pytest.mark.parametrize("suffix", ["", ".gz"])
@pytest.mark.parametrize(
    "form",
    [
        lambda events: events,
        lambda events: {"traceEvents": events},
        lambda events: {"a": [{"traceEvents": [1]}], "b": "]}", "traceEvents": events},
        lambda events: {"a": {"b": [1, "}"]}, "traceEvents": events, "z": [{"name": 1}, {"name": 2}], "y": "x"},
    ],
    ids=["array", "object", "behind keys", "between keys"],
)
def test_all_events_come_in_their_order(tmp_path, blocks, form, indent, suffix):
    events = EVENTS * 30
    text = json.dumps(form(events), indent=indent).encode()
    path = tmp_path / f"trace{suffix}"
    path.write_bytes(gzip.compress(text) if suffix else text)
    stream, found = read(path)
    assert found == events
    assert (stream.unreadable, stream.mended, stream.cut, stream.bytes) == (0, 0, False, len(text))
    beside = form([])
    assert stream.beside == (
        {k: v for k, v in beside.items() if k != "traceEvents"} if isinstance(beside, dict) else {}
    )


@pytest.mark.parametrize("text", [b"[]", b'{"traceEvents": []}', b'{"traceEvents":[\n], "a": 1}'])
def test_a_file_without_events_is_whole(tmp_path, text):
    path = tmp_path / "trace"
    path.write_bytes(text)
    stream, found = read(path)
    assert (found, stream.cut) == ([], False)


def test_members_of_gzip_and_a_byte_order_mark(tmp_path, blocks):
    text = b"\xef\xbb\xbf" + json.dumps({"traceEvents": EVENTS * 20}).encode()
    path = tmp_path / "trace.gz"
    path.write_bytes(b"".join(gzip.compress(text[at : at + 100]) for at in range(0, len(text), 100)) + b"\0" * 9)
    stream, found = read(path)
    assert found == EVENTS * 20
    assert not stream.cut


def test_a_file_cut_anywhere_gives_the_events_before_the_cut(tmp_path, blocks):
    text = json.dumps({"a": 1, "traceEvents": EVENTS * 3}, indent=1)
    begin = text.index("[") + 1
    ends = [begin]
    decoder, at = json.JSONDecoder(), begin
    for _ in EVENTS * 3:
        at = text.index("{", at)
        at = decoder.raw_decode(text, at)[1]
        ends.append(at)
    path = tmp_path / "trace"
    for cut in random.Random(1).sample(range(begin, ends[-1]), 60):
        path.write_text(text[:cut], encoding="utf-8")
        stream, found = read(path)
        whole = sum(end <= cut for end in ends[1:])
        assert stream.cut
        assert found == (EVENTS * 3)[:whole]


def test_a_packed_file_cut_or_damaged_gives_what_comes_before(tmp_path):
    rng = random.Random(2)
    events = [{"ph": "X", "name": f"{rng.getrandbits(120):030x}", "ts": number} for number in range(3000)]
    packed = gzip.compress(json.dumps(events).encode())
    path = tmp_path / "trace.gz"
    path.write_bytes(packed[: len(packed) // 2])
    stream, found = read(path)
    assert stream.cut
    assert 1000 < len(found) < 2000
    assert found == events[: len(found)]
    damaged = bytearray(packed)
    damaged[len(packed) // 2 : len(packed) // 2 + 50] = b"\xff" * 50
    path.write_bytes(damaged)
    stream, found = read(path)
    assert stream.cut or stream.unreadable
    assert len(found) > 1000


BROKEN = {
    "no numbers": (
        '{"ph": "X", "name": "n", "ts": 1, "args": {"a": NaN, "b": -Infinity, "c": [nan, inf, 1, -nan(ind)]}}',
        "n",
    ),
    "control characters": ('{"ph": "X", "name": "tab\tand\nbreak\x01", "ts": 1}', "tab and break "),
    "lonely backslashes": (
        r'{"ph": "X", "name": "C:\path\model\x", "ts": 1}',
        r"C:\path\model\x".replace("\\x", "\\x"),
    ),
    "bare quotes": (
        '{"ph": "X", "name": "<eval>({"device": "cpu"}) f", "pid": 1, "ts": 1}',
        '<eval>({"device": "cpu"}) f',
    ),
    "bare quotes behind a category": ('{"cat": "x", "name": "a "b" c", "pid": 1, "args": {}, "ts": 1}', 'a "b" c'),
    "single quotes": ("{'ph': 'X', 'name': 'it\\'s \"n\"', 'ts': 1}", 'it\'s "n"'),
    "a comma too many": ('{"ph": "X", "name": "n", "ts": 1, "args": {"a": 1,},}', "n"),
}


@pytest.mark.parametrize("kind", BROKEN)
@pytest.mark.parametrize("place", [0, 7, 19])
def test_events_that_are_no_json_are_mended(tmp_path, blocks, kind, place):
    broken, name = BROKEN[kind]
    good = [json.dumps(event) for event in EVENTS * 5]
    texts = [*good[:place], broken, *good[place + 1 :]]
    path = tmp_path / "trace"
    path.write_text(f'{{"traceEvents": [{", ".join(texts)}], "after": 1}}', encoding="utf-8")
    stream, found = read(path)
    assert len(found) == 20
    assert found[place]["name"] == name
    assert (stream.unreadable, stream.cut) == (0, False)
    assert stream.mended >= 1
    assert [one["name"] for number, one in enumerate(found) if number != place and "\n" not in one["name"]] == [
        one["name"] for number, one in enumerate(EVENTS * 5) if number != place and "\n" not in one["name"]
    ]


@pytest.mark.parametrize("place", [0, 7, 19])
def test_what_cannot_be_mended_is_counted(tmp_path, blocks, place):
    texts = [json.dumps(event) for event in EVENTS * 5]
    texts[place] = '{"ph": "X", "name": "n", "ts": 1 2 3 :::, "dur": [}'
    path = tmp_path / "trace"
    path.write_text(f'{{"traceEvents": [{", ".join(texts)}]}}', encoding="utf-8")
    stream, found = read(path)
    assert len(found) == 19
    assert stream.unreadable == 1


def test_letters_that_are_no_utf8_do_not_stop_it(tmp_path):
    path = tmp_path / "trace"
    path.write_bytes(b'[{"ph": "X", "name": "a\xff"}, {"ph": "X", "name": "b"}]')
    stream, found = read(path)
    assert [one["name"] for one in found] == ["a�", "b"]
    assert stream.mended == 1


def test_nesting_without_end_does_not_stop_it(tmp_path):
    path = tmp_path / "trace"
    path.write_text(
        '[{"ph": "X", "name": "a"}, {"name": "deep", "args": ' + "[" * 90_000 + "]" * 90_000 + '}, {"name": "b"}]',
        encoding="utf-8",
    )
    stream, found = read(path)
    assert [one["name"] for one in found] == ["a", "b"]
    assert stream.unreadable == 1


@pytest.mark.parametrize(
    "text", ["{}", '{"a": [1]}', '{"traceEvents": 3}', '{"a": {"traceEvents": []}}', "nothing", "3"]
)
def test_a_file_without_a_list_of_events_is_refused(tmp_path, text):
    path = tmp_path / "trace"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(UserError, match="holds no list traceEvents"):
        read(path)


def test_a_bomb_is_refused_in_little_memory(tmp_path, monkeypatch):
    monkeypatch.setattr(json_stream, "RATIO_FROM", 1 << 24)
    path = tmp_path / "trace.gz"
    path.write_bytes(gzip.compress(b"[" + b" " * (1 << 27), 9))
    tracemalloc.start()
    with pytest.raises(UserError, match="is no trace that can be read"):
        read(path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 1 << 27


def test_progress_ends_at_one(tmp_path, monkeypatch):
    monkeypatch.setattr(json_stream, "BLOCK", 500)
    path = tmp_path / "trace"
    path.write_text(json.dumps(EVENTS * 50), encoding="utf-8")
    shares = []
    stream = Stream(path, dict, shares.append)
    assert sum(map(len, stream.batches())) == 200
    assert shares == sorted(shares)
    assert 0.9 < shares[-1] <= 1


@pytest.mark.parametrize("head", ['{"a": {"b": 1, ', '{"a": [1, ', '{"a": {"b": 1}}, ', '{"a": "x, '])
def test_damage_before_the_events_does_not_hide_them(tmp_path, blocks, head):
    path = tmp_path / "trace"
    path.write_text(f'{head}"traceEvents": {json.dumps(EVENTS)}}}', encoding="utf-8")
    json_stream.BLOCK = max(json_stream.BLOCK, 200)
    stream, found = read(path)
    assert found == EVENTS
    assert stream.mended >= 1


@pytest.mark.parametrize("text", ['{"a": ' + "[" * 900_000, '[{"a": ' + "[" * 900_000, '[{"a" 1}, ' * 90_000])
def test_a_file_of_which_nothing_can_be_read_is_refused_soon(tmp_path, monkeypatch, text):
    monkeypatch.setattr(json_stream, "LARGEST_HEAD", 1 << 17)
    monkeypatch.setattr(json_stream, "LARGEST_BESIDE", 1 << 12)
    monkeypatch.setattr(json_stream, "BLOCK", 1 << 16)
    path = tmp_path / "trace"
    path.write_text(text, encoding="utf-8")
    stream = Stream(path, dict)
    with pytest.raises(UserError, match=r"holds no (list traceEvents|event that can be read in its first)"):
        list(stream.batches())
    assert stream.bytes < 500_000


def test_events_beyond_mending_are_left_out_at_a_price(tmp_path, monkeypatch):
    monkeypatch.setattr(json_stream, "PAINS", 50_000)
    path = tmp_path / "trace"
    path.write_text('[{"ph": "X"}, ' + '{"ph": 1 2, "name": [}, ' * 5_000 + '{"ph": "Y"}]', encoding="utf-8")
    stream, found = read(path)
    assert [one["ph"] for one in found] == ["X", "Y"]
    assert stream.unreadable == 5_000
    assert stream._pains < 50_000 + stream.bytes + 1_000


def test_a_damaged_packed_file_is_called_so(tmp_path):
    numbers = random.Random(1)
    events = [{"ph": "X", "name": numbers.randbytes(20).hex()} for _ in range(3000)]
    packed = bytearray(gzip.compress(json.dumps(events).encode()))
    path = tmp_path / "trace"
    path.write_bytes(packed[:-20])
    assert not read(path)[0].damaged
    packed[-6] ^= 255  # of the checksum
    path.write_bytes(packed)
    assert read(path)[0].damaged

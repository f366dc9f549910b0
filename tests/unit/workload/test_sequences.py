"""Sequences of requests, and the logs that they are replayed from."""

import doctest
import random
import time
import tracemalloc

import pytest

from ceilings.errors import UserError
from ceilings.workload import sequences
from ceilings.workload.request_log import read_log
from ceilings.workload.sequences import MOST_SHAPES, sequence
from ceilings.workload.shape import Shape
from ceilings.workload.shape_order import Requests


def made(**given):
    return sequence("mixed", {"requests": 6, **given}, 7)


def names(requests):
    return [str(requests.shapes[index]) for index in requests.order]


def test_examples_in_docstrings():
    assert doctest.testmod(sequences).failed == 0


def test_alternating_shapes_come_in_turn():
    requests = made(order="alternating", shapes=["b1-s16", "b2-s8"])
    assert names(requests) == ["b1-s16", "b2-s8"] * 3
    assert requests.changes == 5
    assert requests.logged is None


def test_alternating_axes_give_their_product():
    requests = made(order="alternating", axes={"batch": [1, 2], "sequence": [8, 16]}, requests=4)
    assert names(requests) == ["b1-s8", "b1-s16", "b2-s8", "b2-s16"]


def test_drawn_shapes_follow_their_weights_and_the_seed():
    given = {"order": "drawn", "axes": {"batch": [1, 2], "sequence": [8, 16]}, "requests": 10_000}
    weights = {"batch": [3, 1], "sequence": [1, 4]}
    requests = made(**given, weights=weights)
    share = {name: names(requests).count(name) / 10_000 for name in map(str, requests.shapes)}
    for name, expected in {"b1-s8": 0.15, "b1-s16": 0.6, "b2-s8": 0.05, "b2-s16": 0.2}.items():
        assert share[name] == pytest.approx(expected, abs=0.02)  # four standard errors
    assert made(**given, weights=weights) == requests
    assert made(**given, weights=weights, seed=8).order != requests.order


def test_a_weight_of_zero_never_occurs():
    requests = made(order="drawn", shapes=["b1-s8", "b2-s8"], weights={"shapes": [0, 1]}, requests=100)
    assert set(names(requests)) == {"b2-s8"}


def test_sizes_are_rounded_up_as_a_server_pads():
    requests = made(order="alternating", axes={"sequence": [1, 16, 17]}, multiple={"sequence": 16}, requests=3)
    assert names(requests) == ["s16", "s16", "s32"]


def test_a_model_takes_the_axes_that_it_has():
    requests = made(order="alternating", axes={"batch": [1, 2], "sequence": [8, 16]}, requests=4)
    images = requests.at(("batch", "image"), {"image": 224})
    assert names(images) == ["b1-i224", "b1-i224", "b2-i224", "b2-i224"]
    assert images.changes == 1
    with pytest.raises(UserError, match="b1-s8 gives no size of image"):
        requests.at(("batch", "image"), {})


def test_padding_distributions_stay_with_sequences_and_leave_images():
    requests = Requests.of([Shape.parse("b1-s8.half")])
    assert names(requests.at(("batch", "sequence"), {})) == ["b1-s8.half"]
    assert names(requests.at(("batch",), {})) == ["b1"]


@pytest.mark.parametrize(
    ("given", "problem"),
    [
        ({"order": "alternating"}, "give either shapes or axes"),
        ({"order": "drawn", "shapes": ["b1"], "axes": {"batch": [1]}}, "give either shapes or axes"),
        ({"order": "alternating", "shapes": ["b1"], "weights": {"shapes": [1]}}, "weights need order: drawn"),
        ({"order": "drawn", "shapes": ["b1"], "weights": {"shapes": [1, 2]}}, "2 weights of 1 values"),
        ({"order": "drawn", "shapes": ["b1"], "weights": {"batch": [1]}}, "'batch' is none of shapes"),
        ({"order": "drawn", "shapes": ["b1"], "weights": {"shapes": [0]}}, "all are 0"),
        ({"order": "replayed"}, "needs file"),
        ({"order": "replayed", "file": "a.csv", "shapes": ["b1"]}, "shapes has no meaning"),
        ({"order": "drawn", "file": "a.csv", "shapes": ["b1"]}, "file needs order: replayed"),
        ({"order": "alternating", "shapes": ["8x128"]}, "is no shape"),
    ],
)
def test_contradictions_are_refused(given, problem):
    with pytest.raises(UserError, match=problem):
        made(**given)


def test_more_shapes_than_can_be_measured_are_refused_with_the_remedy():
    axes = {"sequence": list(range(1, MOST_SHAPES + 2))}
    with pytest.raises(UserError, match="round sizes up"):
        made(order="alternating", axes=axes, requests=1000)
    assert len(made(order="alternating", axes=axes, requests=1000, multiple={"sequence": 16}).shapes) == 5


# --- logs ------------------------------------------------------------------------------------------------------------

CSV = "arrival,batch,length,user\n0.5,1,16,ann\n1.5,2,64,bob\n2,1,16,ann\n"
JSONL = '{"arrival": 0.5, "length": 16}\n\n{"arrival": 1.5, "batch": 2, "length": 64}\n'


def log(tmp_path, content, name="log.csv", most=100):
    path = tmp_path / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return read_log(path, most)


def test_a_csv_log_gives_its_requests(tmp_path):
    read = log(tmp_path, CSV)
    assert read.requests == ({"batch": 1, "sequence": 16}, {"batch": 2, "sequence": 64}, {"batch": 1, "sequence": 16})
    assert (read.total, read.sorted) == (3, False)


def test_a_log_of_json_lines_may_have_blank_ones_and_no_batch(tmp_path):
    assert log(tmp_path, JSONL, "log.jsonl").requests == (
        {"batch": 1, "sequence": 16},
        {"batch": 2, "sequence": 64},
    )


def test_an_unsorted_log_is_sorted_by_arrival_and_says_so(tmp_path):
    read = log(tmp_path, "arrival,length\n3,30\n1,10\n3,31\n2,20\n")
    assert [sizes["sequence"] for sizes in read.requests] == [10, 20, 30, 31]
    assert read.sorted


def test_the_first_requests_by_arrival_are_kept_not_those_of_the_file(tmp_path):
    read = log(tmp_path, "arrival,length\n3,30\n1,10\n2,20\n", most=2)
    assert [sizes["sequence"] for sizes in read.requests] == [10, 20]
    assert read.total == 3


def test_without_arrivals_the_file_has_the_order(tmp_path):
    read = log(tmp_path, "length\n30\n10\n")
    assert [sizes["sequence"] for sizes in read.requests] == [30, 10]
    assert not read.sorted


def test_tables_write_whole_numbers_with_a_point(tmp_path):
    assert log(tmp_path, "length\n30.0\n10.0\n").requests[0]["sequence"] == 30


def test_a_text_beside_the_sizes_may_be_long(tmp_path):
    assert log(tmp_path, f"length,text\n30,{'x' * 200_000}\n10,y\n").total == 2


def test_shapes_have_the_line_that_they_come_from(tmp_path):
    path = tmp_path / "log.csv"
    path.write_text("arrival,length\n2,30\n3,17\n1,10\n4,30\n")
    requests = made(order="replayed", file=str(path), multiple={"sequence": 16})
    assert names(requests) == ["b1-s16", "b1-s32", "b1-s32", "b1-s32"]
    assert requests.lines == (4, 2)
    assert requests.at(("batch", "sequence"), {}).named(1) == "b1-s32 (line 2)"
    with pytest.raises(UserError, match=r"b1-s16 \(line 4\) gives no size of image"):
        requests.at(("image",), {})


def test_a_byte_order_mark_is_no_part_of_the_first_column(tmp_path):
    assert log(tmp_path, b"\xef\xbb\xbflength\n30\n10\n").total == 2


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        ("arrival,length\n1,16\n-2,16\n", "line 3: arrival '-2'"),
        ("arrival,length\n1,16\nnan,16\n", "line 3: arrival 'nan'"),
        ("arrival,length\n1,16\nsoon,16\n", "line 3: arrival 'soon' is no number; give seconds"),
        ("arrival,length\n1,16\n,16\n", "line 3: no arrival, and lines before have one"),
        ("arrival,length\n,16\n1,16\n", "line 3: an arrival, and lines before have none"),
        ("arrival,length\n1,16\n2,0\n", "line 3: length '0'"),
        ("arrival,length\n1,16\n2,1.5\n", "line 3: length '1.5'"),
        ("arrival,length\n1,16\n2,-4\n", "line 3: length '-4'"),
        ("arrival,length\n1,16\n2,inf\n", "line 3: length 'inf'"),
        ("arrival,length\n1,16\n2,99999999999\n", "line 3: length '99999999999'"),
        ("arrival,length\n1,16\n2,\n", "line 3: no size of a request"),
        ("batch,length\n1,16\n2,\n", "line 3: no length, and lines before have one; give every line one, or none"),
        ("batch,length\n1,\n1,16\n", "line 3: a length, and lines before have none"),
        ("length,prompt\n16,hello\n", "line 2: prompt 'hello' is no whole number .*rename the column"),
        ("arrival;length\n1;16\n", "line 1: the header names none of .*it is 'arrival;length'"),
        ("arrival,length\n1,16\n2\n", "line 3: 1 fields, and the header has 2"),
        ("arrival,length,sequence\n1,16,16\n2,16,16\n", "line 2: length and sequence say the same"),
        ("length,length\n1,16\n2,16\n", "names length twice"),
        ("when,tokens\n1,16\n2,16\n", "line 1: the header names none of"),
        ("", "line 1: the header names none of .*it is empty"),
        ("arrival,length\n", "no request: shapes change"),
        ("arrival,length\n1,16\n", "one request: shapes change"),
        (b"arrival,length\n1,\xff\xfe\n", "not UTF-8"),
        ('arrival,length\n1,"16\n2,16\n', "no CSV"),
    ],
)
def test_a_bad_csv_log_is_refused_by_its_line(tmp_path, content, problem):
    with pytest.raises(UserError, match=problem) as refused:
        log(tmp_path, content)
    assert "log.csv" in str(refused.value)


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ("{", "no JSON"),
        ("[1]", "no JSON object"),
        ('{"length": true}', "length True"),
        ('{"length": "x"}', "length 'x'"),
        ('{"length": NaN}', "length nan"),
        ('{"length": 16, "arrival": true}', "arrival True"),
        ('{"length": 16, "arrival": [1]}', "arrival"),
        ("[" * 100_000, "no JSON"),
        ('{"length": 16, "note": "' + "x" * 1_000_001 + '"}', "longer than"),
    ],
)
def test_a_bad_line_of_json_is_refused_by_its_number(tmp_path, line, problem):
    before = '{"length": 16, "arrival": 0}' if "arrival" in line else '{"length": 16}'
    with pytest.raises(UserError, match=problem) as refused:
        log(tmp_path, f"{before}\n{line}\n", "log.jsonl")
    assert "line 2" in str(refused.value)


def test_a_bad_line_is_refused_also_beyond_what_is_kept(tmp_path):
    with pytest.raises(UserError, match="line 5"):
        log(tmp_path, "length\n1\n2\n3\n0\n", most=2)


@pytest.mark.parametrize("name", ["log.txt", "log", "missing.csv"])
def test_what_is_no_log_is_refused(tmp_path, name):
    (tmp_path / "log.txt").write_text(CSV)
    (tmp_path / "log").mkdir()
    with pytest.raises(UserError):
        read_log(tmp_path / name, 10)


def test_a_long_log_takes_bounded_memory_and_time_in_proportion(tmp_path):
    random.seed(1)
    lines = [f"{random.random():.6f},{random.randint(1, 512)}" for _ in range(30_000)]
    path = tmp_path / "log.csv"
    path.write_text("arrival,length\n" + "\n".join(lines))
    tracemalloc.start()
    began = time.process_time()
    try:
        read = read_log(path, 200)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert (read.total, len(read.requests)) == (30_000, 200)
    assert peak < 1_000_000  # as objects the log has 6 MB
    assert time.process_time() - began < 10  # under tracemalloc; without it a million lines take some seconds
    first = sorted(lines, key=lambda line: float(line.split(",")[0]))[:200]
    assert [sizes["sequence"] for sizes in read.requests] == [int(line.split(",")[1]) for line in first]

"""A study's file that YAML or Snakemake would take for something else is refused, with the line and the remedy."""

import pytest

from ceilings.errors import UserError
from ceilings.study import study_file

BOMB = "".join(f"x{n}: &b{n} [{', '.join([f'*b{n - 1}' if n else '1'] * 9)}]\n" for n in range(9))


@pytest.fixture
def file(tmp_path):
    return tmp_path / "study.yaml"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("models:\n  a: {seed: 1}\n  a: {seed: 2}\n", r"line 3: 'a' stands here twice; keep one of the two"),
        ("a: {true: 1, yes: 2}\n", r"line 1: True stands here twice"),
        ("", r"is empty"),
        ("# nothing\n", r"holds no keys at its top level; begin it with study: NAME"),
        ("- a\n- b\n", r"holds no keys at its top level"),
        ("study:\tx\n\tseed: 1\n", r"line 1, column 7 is not valid YAML .*; indent with spaces, not with tabs"),
        ("study: [1\nseed: 2\n", r"line 2, .* is not valid YAML .*; mend it there"),
        ("study: a\nx: *nobody\n", r"line 2, column 4 is not valid YAML \(found undefined alias"),
        ("study: é\n".encode("latin-1"), r"is not UTF-8 text \(.* at byte 7\); convert it"),
        ("study: a\n".encode("utf-16"), r"is not UTF-8 text"),
        ("a: 1\nb: &b {x: *b}\n", r"line 2: this stands within itself; write it out without the alias"),
        (BOMB, r"its aliases stand for more than 1000000 values"),
        ("a: " + "[" * 5000 + "]" * 5000 + "\n", r"is nested too deep"),
        ("? [1, 2]\n: 3\n", r"line 1: a key must be one word"),
        ("a: !!python/name:os.system\n", r"line 1: the tag .*python.* is no plain data"),
        ("a: [1,\n 010]\n", r"line 2: 010 is 8 to YAML, in base 8; write 8, or '010' in quotes"),
        ("a: 1:30\n", r"1:30 is 90 to YAML, in base 60"),
        (
            "study: a\n__use_yte__: true\n",
            r"has __use_yte__, for which Snakemake runs the Python in it; write out what",
        ),
        ("x: &x {__use_yte__: true}\n<<: *x\n", r"line 2: '<<' brings in keys that stand elsewhere; write them out"),
        ("a: {processes: 5, <<: {processes: 3}}\n", r"line 1: '<<' brings in keys"),
        ("a: 0x" + "f" * 5000, r"line 1: 0xfff.* is a number of 5002 digits; write a smaller one, or quote a name"),
        ("a: b\0c\n", r"is not valid YAML \(.*special characters are not allowed\); mend it there"),
        ("a: 2020-99-01\n", r"line 1: '2020-99-01' cannot be read as timestamp; write it in quotes"),
        ("a: !!int x\n", r"line 1: 'x' cannot be read as int"),
        ("a: !!bool maybe\n", r"line 1: 'maybe' cannot be read as bool"),
        ("a: {<<: 3}\n", r"line 1: '<<' brings in keys"),
        (
            b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n",
            r"is a pointer of git-lfs and not the file; run git lfs pull",
        ),
    ],
)
def test_bad_file_is_refused(file, content, message):
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(UserError, match=message) as caught:
        study_file.refuse(file)
    assert str(file) in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize("kind", ["missing", "folder", "link"])
def test_what_is_no_file_is_refused(file, kind):
    if kind == "folder":
        file.mkdir()
    if kind == "link":
        file.symlink_to("nowhere")
    message = {"missing": "does not exist", "folder": "is a folder; name a file", "link": "is a link to nowhere, which"}
    with pytest.raises(UserError, match=message[kind]):
        study_file.refuse(file)


def test_anchors_and_a_byte_order_mark_are_fine(file):
    text = "models:\n  a: &a {seed: 1, architecture: bert}\n  b: *a\nseed: 0\nx: 0x10\ny: 1.5\n"
    file.write_bytes(b"\xef\xbb\xbf" + text.encode())
    study_file.refuse(file)

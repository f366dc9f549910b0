"""Labelled files as they come, and what is said of those that cannot be read."""

import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ceilings.errors import UserError
from ceilings.models.labelled import Classes, read

SENTIMENT = Classes(2, ("NEGATIVE", "POSITIVE"))
GLUE = "sentence\tlabel\nit 's a \"charming and often affecting journey . \t1\nunflinchingly bleak and desperate \t0\n"


def write(path, content):
    path.write_text(content, encoding="utf-8")
    return path


def test_dev_tsv_of_glue_works_as_it_comes(tmp_path):
    """An open quotation mark is a character there, not the begin of a field over many lines."""
    table = read(write(tmp_path / "dev.tsv", GLUE), SENTIMENT)
    assert table.texts == ["it 's a \"charming and often affecting journey . ", "unflinchingly bleak and desperate "]
    assert (table.labels, table.text, table.label) == ([1, 0], "sentence", "label")


def hub_parquet(path, names, labels=(0, 1)):
    table = pa.table({"idx": [0, 1], "sentence": ["bleak", "charming"], "label": list(labels)})
    feature = {"names": names, "_type": "ClassLabel"}
    metadata = {"huggingface": json.dumps({"info": {"features": {"label": feature, "idx": {"dtype": "int32"}}}})}
    pq.write_table(table.replace_schema_metadata(metadata), path)
    return path


def test_parquet_of_the_hub_works_as_it_comes(tmp_path):
    table = read(hub_parquet(tmp_path / "v.parquet", ["negative", "positive"]), SENTIMENT)
    assert (table.texts, table.labels) == (["bleak", "charming"], [0, 1])


def test_numbers_mean_what_the_file_calls_them_where_the_model_knows_the_names(tmp_path):
    path = hub_parquet(tmp_path / "v.parquet", ["negative", "positive"])
    assert read(path, Classes(2, ("Positive", "Negative"))).labels == [1, 0]
    assert read(path, Classes(2, ("LABEL_0", "LABEL_1"))).labels == [0, 1]


def test_hidden_labels_of_a_test_split_are_refused(tmp_path):
    path = hub_parquet(tmp_path / "test.parquet", ["negative", "positive"], (-1, -1))
    with pytest.raises(UserError, match=r"test\.parquet, row 1, column 'label': -1 .* take the validation split"):
        read(path, SENTIMENT)


def test_csv_and_json_lines_hold_the_same(tmp_path):
    comma = write(tmp_path / "a.csv", '\ufeffText,Sentiment\n"one, two\nthree",positive\nfour,NEGATIVE\n')
    lines = '{"text": "one, two\\nthree", "label": "positive"}\n\n{"text": "four", "label": 0, "more": 1}\n'
    a, b = read(comma, SENTIMENT), read(write(tmp_path / "a.jsonl", lines), SENTIMENT)
    assert a.texts == b.texts == ["one, two\nthree", "four"]
    assert a.labels == b.labels == [1, 0]
    assert (a.text, a.label) == ("Text", "Sentiment")


def test_columns_may_be_named(tmp_path):
    path = write(tmp_path / "a.csv", "text,label,says,gold\nx,0,y,1\n")
    table = read(path, SENTIMENT, "says", "gold")
    assert (table.texts, table.labels) == (["y"], [1])


def test_a_regression_takes_numbers(tmp_path):
    path = write(tmp_path / "a.tsv", "text\tscore\nx\t3.25\ny\t-1\n")
    assert read(path, Classes(1)).labels == [3.25, -1.0]


def test_texts_alone_have_no_labels(tmp_path):
    path = write(tmp_path / "a.csv", "text\nx\n")
    assert read(path, SENTIMENT).labels is None
    labelled = write(tmp_path / "b.csv", "text,label\nx,whatever\n")
    assert read(labelled, None).labels is None


def test_names_come_from_a_configuration_in_the_order_of_their_numbers():
    by_id = {"id2label": {"10": "k", **{str(i): chr(97 + i) for i in range(10)}}}
    assert Classes.of(11, by_id).names == (*"abcdefghij", "k")
    assert Classes.of(2, {"label2id": {"yes": 1, "no": 0}}).names == ("no", "yes")
    assert Classes.of(3, {"id2label": {"0": "a"}}).names == ()


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        (
            "a.csv",
            "text,label\nx,1\ny,nice\n",
            r"a\.csv, line 3, column 'label': 'nice' .* POSITIVE .* 0 to 1",
        ),
        ("a.csv", "text,label\nx,2\n", r"line 2, column 'label': '2' is no class; they go from 0 to 1"),
        ("a.csv", "text,label\nx,\n", r"line 2, column 'label' is empty; give every row a label"),
        ("a.csv", "text,label\n ,1\n", r"line 2, column 'text': ' ' is no text"),
        ("a.csv", "body,label\nx,1\n", r"no column called sentence, text.* its columns are body, label: .*data\.text"),
        ("a.csv", "text,label\nx,1,2\n", r"line 2 has 3 fields, but the first line names 2 columns"),
        ("a.csv", 'text,label\n"x"y,1\n', r"line 2 cannot be read .* mend its quotes"),
        ("a.csv", "text;label\nx;1\n", r"a\.csv separates its columns by semicolons, .*; write it with commas"),
        (
            "a.csv",
            "text\tlabel\nx\t1\n",
            r"separates its columns by tabs, .* name it \.tsv",
        ),
        (
            "a.tsv",
            "text,label\nx,1\n",
            r"separates its columns by commas, .* name it \.csv",
        ),
        ("a.csv", "text,label\n", r"holds no rows"),
        ("a.csv", "", r"its columns are none"),
        ("a.jsonl", '{"text": "x"\n', r"a\.jsonl, line 1 is no JSON"),
        ("a.jsonl", '{"text": "x", "label": 1}\n[1]\n', r"line 2 is '\[1\]'; give one object a line"),
        ("a.jsonl", '{"text": "x", "label": 1}\n{"label": 1}\n', r"line 2, column 'text': None is no text"),
        ("a.parquet", "no parquet", r"cannot be read as Parquet"),
        ("a.txt", "text\nx\n", r"must end in one of \.csv, \.tsv"),
    ],
)
def test_what_cannot_be_read_is_named_with_its_place_and_a_remedy(tmp_path, name, content, message):
    with pytest.raises(UserError, match=message):
        read(write(tmp_path / name, content), SENTIMENT)


def test_a_missing_column_or_file_is_named(tmp_path):
    path = write(tmp_path / "a.csv", "text,label\nx,1\n")
    with pytest.raises(UserError, match=r"no column 'gold'; its columns are text, label: name one"):
        read(path, SENTIMENT, None, "gold")
    for suffix in ("csv", "parquet"):
        with pytest.raises(UserError, match=r"does not exist; name the labelled file under models\.NAME\.data\.file"):
            read(tmp_path / f"none.{suffix}", SENTIMENT)


def test_other_encodings_are_refused(tmp_path):
    (tmp_path / "a.csv").write_bytes("text\ncafé\n".encode("latin-1"))
    with pytest.raises(UserError, match=r"is not UTF-8 text .* convert it"):
        read(tmp_path / "a.csv", SENTIMENT)


def test_a_regression_refuses_words(tmp_path):
    with pytest.raises(UserError, match=r"line 2, column 'label': 'good' is no number; this model's answer is one"):
        read(write(tmp_path / "a.csv", "text,label\nx,good\n"), Classes(1))

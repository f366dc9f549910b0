"""Labelled texts from a file: CSV, TSV, JSON Lines or Parquet. Standard library, and pyarrow for Parquet.

A file of GLUE or of the hub works as it comes: its text and label columns are known by their names.
"""

from __future__ import annotations

import csv
import dataclasses
import io
import json
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ceilings import files
from ceilings.errors import UserError

TEXTS = ("sentence", "text", "content", "review", "document", "title", "question")
LABELS = ("label", "labels", "target", "class", "sentiment", "score")
"""What the column of texts and the column of labels may be called, in any case; the first that is there counts."""

FORMATS = {".csv": "CSV", ".tsv": "TSV", ".jsonl": "JSON Lines", ".ndjson": "JSON Lines", ".parquet": "Parquet"}


@dataclasses.dataclass(frozen=True)
class Classes:
    """What a model's answers are called.

    Attributes:
        count: How many classes; 1 is a regression, whose label is a number.
        names: Name of each class, in their order; empty where the model gives none.
    """

    count: int
    names: tuple[str, ...] = ()

    @classmethod
    def of(cls, count: int, config: Mapping[str, Any]) -> Classes:
        """Of a configuration's ``id2label``, else ``label2id``."""
        if isinstance(by_id := config.get("id2label"), Mapping) and len(by_id) == count:
            return cls(count, tuple(str(by_id[key]) for key in sorted(by_id, key=int)))
        if isinstance(by_name := config.get("label2id"), Mapping) and len(by_name) == count:
            return cls(count, tuple(sorted(map(str, by_name), key=lambda name: int(by_name[name]))))
        return cls(count)


@dataclasses.dataclass(frozen=True)
class Table:
    """Texts and, if there are any, labels.

    Attributes:
        texts: One a row.
        labels: Class of each row, or the number that a regression should give; None where the file has none.
        text, label: The columns they come from; ``label`` None where there is none.
    """

    texts: list[str]
    labels: list[int] | list[float] | None
    text: str
    label: str | None


def read(path: Path, classes: Classes | None, text: str | None = None, label: str | None = None) -> Table:
    """Texts and labels of a file.

    Args:
        path: The file; its suffix tells its format.
        classes: Of the model; None: labels are of no use to it, so none are read.
        text: Column of the texts; None finds it by its name.
        label: Column of the labels; None finds it by its name, or reads none.

    Raises:
        UserError: The file, a row or a column is missing or cannot be read. Rows are counted as lines of the file,
            those of Parquet from 1.
    """
    if path.suffix.lower() not in FORMATS:
        raise UserError(f"{path} is no labelled file: its name must end in one of {', '.join(FORMATS)}")
    try:
        columns, rows, names = _READERS[FORMATS[path.suffix.lower()]](path)
        text_column = _column(path, columns, text, TEXTS, "text")
        label_column = None if classes is None else _label_column(path, columns, label)
        texts: list[str] = []
        labels: list[Any] = []
        for number, row in rows:
            texts.append(_text(row.get(text_column), _place(path, number, text_column)))
            if classes is not None and label_column is not None:
                where = _place(path, number, label_column)
                labels.append(_label(row.get(label_column), classes, names.get(label_column, ()), where))
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is not UTF-8 text ({error.reason} at byte {error.start}); convert it") from None
    except FileNotFoundError:
        raise UserError(f"{path} does not exist; name the labelled file under models.NAME.data.file") from None
    if not texts:
        raise UserError(f"{path} holds no rows; give it at least one below the names of its columns")
    return Table(texts, labels if label_column is not None else None, text_column, label_column)


def refuse_columns(path: Path, text: str | None = None, label: str | None = None) -> None:
    """Refuse a file by the start of it, as ``read`` would: its suffix, the column of texts and a named one of labels.

    Raises:
        UserError: As of ``read``.
    """
    if path.suffix.lower() not in FORMATS:
        raise UserError(f"{path} is no labelled file: its name must end in one of {', '.join(FORMATS)}")
    columns = _columns(path)
    _column(path, columns, text, TEXTS, "text")
    _label_column(path, columns, label)


def _columns(path: Path) -> Sequence[str]:
    form = FORMATS[path.suffix.lower()]
    if form == "Parquet":
        return _parquet(path, rows=False)[0]
    start = files.head(path)
    text = start.decode("utf-8-sig", errors="ignore")
    if form == "JSON Lines":
        whole = text if len(start) < files.HEAD_BYTES else text.rpartition("\n")[0]
        return _json_rows(path, whole)[0]
    dialect: dict[str, Any] = TSV if form == "TSV" else {}
    columns = [name.strip() for name in next(csv.reader(io.StringIO(text, newline=""), **dialect), [])]
    _refuse_other_separator(path, columns)
    return columns


OTHER_SEPARATORS = {
    ";": ("semicolons", "write it with commas"),
    "|": ("bars", "write it with commas"),
    "\t": ("tabs", "name it .tsv"),
    ",": ("commas", "name it .csv"),
}
"""What separates columns elsewhere, with its name and the remedy."""


def _refuse_other_separator(path: Path, columns: Sequence[str]) -> None:
    """Refuse a file whose first line is one name that holds what separates columns elsewhere."""
    for separator, (name, remedy) in OTHER_SEPARATORS.items():
        if len(columns) == 1 and separator in columns[0]:
            raise UserError(f"{path} separates its columns by {name}, and a {path.suffix} is read otherwise; {remedy}")


# --- rows of each format ---------------------------------------------------------------------------------------------

Rows = Iterable[tuple[int, Mapping[str, Any]]]
Content = tuple[Sequence[str], Rows, Mapping[str, Sequence[str]]]
"""Names of the columns; rows with their numbers; and, of columns that number their labels, what the numbers mean."""


TSV: dict[str, Any] = {"delimiter": "\t", "quoting": csv.QUOTE_NONE}


def _separated(path: Path, **dialect: Any) -> Content:
    reader = csv.reader(io.StringIO(path.read_text(encoding="utf-8-sig"), newline=""), strict=True, **dialect)
    try:
        columns = [name.strip() for name in next(reader, [])]
        _refuse_other_separator(path, columns)
        rows = [(reader.line_num, values) for values in reader if values]
    except csv.Error as error:
        raise UserError(f"{path}, line {reader.line_num} cannot be read ({error}); mend its quotes") from None
    for line, values in rows:
        if len(values) != len(columns):
            raise UserError(
                f"{path}, line {line} has {len(values)} fields, but the first line names {len(columns)} columns; "
                "mend the line (in CSV, quote a field that holds a comma)"
            )
    return columns, [(line, dict(zip(columns, values, strict=True))) for line, values in rows], {}


def _csv(path: Path) -> Content:
    return _separated(path)


def _tsv(path: Path) -> Content:
    """Quotes are plain characters, as in the files of GLUE."""
    return _separated(path, **TSV)


def _json_lines(path: Path) -> Content:
    return _json_rows(path, path.read_text(encoding="utf-8-sig"))


def _json_rows(path: Path, text: str) -> Content:
    lines = text.split("\n")
    parsed = []
    for number, line in enumerate(lines, 1):
        if line.strip():
            try:
                row = json.loads(line)
            except json.JSONDecodeError as error:
                raise UserError(f"{path}, line {number} is no JSON ({error}); give one object a line") from None
            if not isinstance(row, dict):
                raise UserError(f"{path}, line {number} is {line.strip()[:40]!r}; give one object a line")
            parsed.append((number, row))
    columns = list(dict.fromkeys(name for _, row in parsed for name in row))
    return columns, parsed, {}


def _parquet(path: Path, rows: bool = True) -> Content:
    import pyarrow.lib
    import pyarrow.parquet

    if not path.is_file():
        raise FileNotFoundError(path)
    try:
        if not rows:
            return pyarrow.parquet.read_schema(path).names, (), {}
        table = pyarrow.parquet.read_table(path)
    except (pyarrow.lib.ArrowException, OSError) as error:
        raise UserError(f"{path} cannot be read as Parquet ({error}); write it again") from None
    return table.column_names, enumerate(table.to_pylist(), 1), _hub_names(table.schema.metadata or {})


_READERS = {"CSV": _csv, "TSV": _tsv, "JSON Lines": _json_lines, "Parquet": _parquet}


def _hub_names(metadata: Mapping[bytes, bytes]) -> dict[str, Sequence[str]]:
    """What numbered labels mean, as the hub's ``datasets`` writes it beside the columns."""
    try:
        features = json.loads(metadata[b"huggingface"])["info"]["features"]
        return {name: feature["names"] for name, feature in features.items() if feature.get("names")}
    except (KeyError, TypeError, AttributeError, ValueError):
        return {}


# --- columns and values ----------------------------------------------------------------------------------------------


def _column(path: Path, columns: Sequence[str], wanted: str | None, known: Sequence[str], key: str) -> str:
    if column := _find(columns, wanted, known):
        return column
    has = ", ".join(columns) or "none"
    if wanted is not None:
        raise UserError(f"{path} has no column {wanted!r}; its columns are {has}: name one of them as data.{key}")
    raise UserError(
        f"{path} has no column called {', '.join(known)}; its columns are {has}: name the right one as data.{key} "
        "(the first line of CSV and TSV holds the names)"
    )


def _label_column(path: Path, columns: Sequence[str], wanted: str | None) -> str | None:
    return _column(path, columns, wanted, LABELS, "label") if wanted else _find(columns, None, LABELS)


def _find(columns: Sequence[str], wanted: str | None, known: Sequence[str]) -> str | None:
    if wanted is not None:
        return wanted if wanted in columns else None
    folded = {name.casefold(): name for name in reversed(columns)}
    return next((folded[name] for name in known if name in folded), None)


def _place(path: Path, number: int, column: str) -> str:
    return f"{path}, {'row' if path.suffix.lower() == '.parquet' else 'line'} {number}, column {column!r}"


def _text(value: Any, where: str) -> str:
    if not isinstance(value, str) or not value.strip():
        raise UserError(f"{where}: {value!r} is no text; fill it in or remove the row")
    return value


def _label(value: Any, classes: Classes, meanings: Sequence[str], where: str) -> int | float:
    """A class, or what a regression should give.

    Args:
        meanings: What the file itself calls its numbers. Where all are names of the model's classes too, they count:
            files and models number the same classes differently.
    """
    if value is None or value == "":
        raise UserError(f"{where} is empty; give every row a label or remove the row")
    if classes.count == 1:
        return _number(value, where)
    by_name = {name.casefold(): index for index, name in enumerate(classes.names)}
    if isinstance(value, str) and value.strip().casefold() in by_name:
        return by_name[value.strip().casefold()]
    if isinstance(value, str) and not re.fullmatch(r"\s*[+-]?\d+(\.0*)?\s*", value):
        known = ", ".join(classes.names) or "none"
        raise UserError(
            f"{where}: {value!r} is no class of this model; its names are {known} (id2label of config.json): "
            f"use them, or numbers from 0 to {classes.count - 1}"
        )
    number = _number(value, where)
    if not (number.is_integer() and 0 <= number < classes.count):
        hidden = "; -1 stands for a hidden label: take the validation split" if number == -1 else ""
        raise UserError(f"{where}: {value!r} is no class; they go from 0 to {classes.count - 1}{hidden}")
    if meanings and number < len(meanings) and all(name.casefold() in by_name for name in meanings):
        return by_name[meanings[int(number)].casefold()]
    return int(number)


def _number(value: Any, where: str) -> float:
    try:
        number = float(value)
    except (TypeError, ValueError):
        number = math.nan
    if not math.isfinite(number):
        raise UserError(f"{where}: {value!r} is no number; this model's answer is one, so give one a row")
    return number

"""The file of a study as it is written: what YAML or Snakemake would take for something else is refused."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from ceilings import files
from ceilings.errors import UserError

TEMPLATE = "__use_yte__"
"""The key at which Snakemake runs the Python expressions that a configuration file holds."""

MOST_VALUES = 1_000_000
"""A file may hold this many values once its aliases are written out."""

MOST_DIGITS = 40
"""Of a number: Python itself refuses some thousand."""

KINDS = ("map", "seq", "str", "int", "float", "bool", "null", "timestamp", "merge", "value")
DATA = {f"tag:yaml.org,2002:{kind}" for kind in KINDS}


def refuse(path: Path | str) -> None:
    """Raise UserError where a file is no plain YAML object, or a reader would take it for something else.

    Two keys of one name (a reader takes the last), merge keys, numbers that YAML reads in base 8 or 60, an object
    within itself, aliases that expand without bounds, tags, and templates, which are programs.
    """
    if problem := files.problem(Path(path), text=True):
        raise UserError(f"the study {path} {problem}")
    try:
        loader = yaml.SafeLoader(Path(path).read_text(encoding="utf-8-sig"))
        node = loader.get_single_node()
        if not isinstance(node, yaml.MappingNode):
            raise UserError(f"the study {path} holds no keys at its top level; begin it with study: NAME")
        problem = next(_problems(node, loader, [], {}), None)
        if not problem and TEMPLATE in loader.construct_document(node):
            raise UserError(
                f"the study {path} has {TEMPLATE}, for which Snakemake runs the Python in it; write out what it gives, "
                "and remove the key"
            )
    except yaml.YAMLError as error:
        raise UserError(f"the study {path}{_of_yaml(error)}") from None
    except RecursionError:
        raise UserError(f"the study {path} is nested too deep; write fewer levels") from None
    if problem:
        raise UserError(f"the study {path}, {problem}")


def _problems(node: yaml.Node, loader: yaml.SafeLoader, outer: list[yaml.Node], sizes: dict[int, int]) -> Iterator[str]:
    """What is wrong in a node. ``sizes`` holds, by ``id``, the values of each node that was looked at."""
    if node in outer:
        yield f"{_line(node)}: this stands within itself; write it out without the alias"
    if id(node) in sizes:
        return
    if node.tag not in DATA:
        yield f"{_line(node)}: the tag {node.tag!r} is no plain data; remove it"
    inner = []
    if isinstance(node, yaml.MappingNode):
        yield from _keys(node, loader)
        inner = [part for pair in node.value for part in pair]
    elif isinstance(node, yaml.SequenceNode):
        inner = node.value
    elif problem := _misread(node, loader):
        yield f"{_line(node)}: {problem}"
    for part in inner:
        yield from _problems(part, loader, [*outer, node], sizes)
    sizes[id(node)] = 1 + sum(sizes[id(part)] for part in inner)
    if sizes[id(node)] > MOST_VALUES:
        yield f"{_line(node)}: its aliases stand for more than {MOST_VALUES} values; write out what is meant"


def _keys(node: yaml.MappingNode, loader: yaml.SafeLoader) -> Iterator[str]:
    seen: set[Any] = set()
    for key, _ in node.value:
        if not isinstance(key, yaml.ScalarNode):
            yield f"{_line(key)}: a key must be one word, and this is a list or an object"
            continue
        if key.tag.endswith(":merge"):
            yield f"{_line(key)}: '<<' brings in keys that stand elsewhere; write them out here"
            continue
        name = loader.construct_object(key)
        if name in seen:
            yield f"{_line(key)}: {name!r} stands here twice; keep one of the two"
        seen.add(name)


def _misread(node: yaml.Node, loader: yaml.SafeLoader) -> str | None:
    """Of a number whose digits mean another one to YAML."""
    written = str(node.value)
    kind = node.tag.rsplit(":", 1)[1]
    if node.tag.endswith((":int", ":float")) and len(written) > MOST_DIGITS:
        return f"{written[:MOST_DIGITS]}... is a number of {len(written)} digits; write a smaller one, or quote a name"
    try:
        read = loader.construct_object(node)
    except (ValueError, KeyError, yaml.YAMLError):
        return None if kind in ("merge", "value") else f"{written!r} cannot be read as {kind}; write it in quotes"
    if not node.tag.endswith((":int", ":float")) or not re.search(r":|^[-+]?0[0-7_]+$", written):
        return None
    base = "base 60" if ":" in written else "base 8"
    return f"{written} is {read} to YAML, in {base}; write {read}, or {written!r} in quotes if it is a name"


def _of_yaml(error: yaml.YAMLError) -> str:
    mark = getattr(error, "problem_mark", None)
    where = f", line {mark.line + 1}, column {mark.column + 1}" if mark else ""
    what = str(getattr(error, "problem", None) or next(iter(str(error).splitlines()), "no reason given"))
    remedy = "indent with spaces, not with tabs" if "\\t" in what else "mend it there"
    return f"{where} is not valid YAML ({what}); {remedy}"


def _line(node: yaml.Node) -> str:
    return f"line {node.start_mark.line + 1}"

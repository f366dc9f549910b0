"""Reads and checks a study: every problem is one message that names the key, the value and what is allowed.

Imports no catalogue: the plug-ins that a study names must be active before one is read.
"""

from __future__ import annotations

import copy
import difflib
import json
import math
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import jsonschema
import yaml

from ceilings.errors import UserError

SCHEMA = json.loads((Path(__file__).parent / "schema.json").read_text())

RENAMED = {"inputs.ring": "inputs.pool"}
"""Keys that have another name now, by their place."""


def checked(config: Mapping[str, Any]) -> dict[str, Any]:
    """``config`` with every default filled in.

    Raises:
        UserError: It does not fit the schema. All problems are named at once.
    """
    problems = sorted({_message(error) for error in _Validator(SCHEMA).iter_errors(config)})
    if problems:
        raise UserError("the study cannot be read:\n" + "\n".join(f"  {problem}" for problem in problems))
    return _with_defaults(copy.deepcopy(dict(config)), SCHEMA)


def refuse_duplicate_keys(path: Path | str) -> None:
    """Raise UserError where a YAML file names one key twice: a reader would silently take the last."""
    try:
        with open(path, encoding="utf-8") as file:
            yaml.load(file, _UniqueKeyLoader)
    except yaml.YAMLError as error:
        raise UserError(f"{path} is not valid YAML: {error}") from None


def nearest(name: str, known: Iterable[str]) -> str:
    """A hint that completes "X is unknown": the nearest known name, or all of them."""
    known = list(known)
    close = difflib.get_close_matches(name, known, n=1)
    return f"did you mean {close[0]!r}?" if close else f"allowed: {', '.join(known)}"


def _matches(_: Any, pattern: str, instance: Any, __: Any) -> Iterator[jsonschema.ValidationError]:
    """``pattern`` on the whole string: Python's ``$`` would let a line break pass."""
    if isinstance(instance, str) and not re.fullmatch(pattern, instance):
        yield jsonschema.ValidationError(f"{instance!r} does not match {pattern!r}")


def _is_integer(_: Any, value: Any) -> bool:
    """A whole number as YAML has it: 1.0 would be printed into paths as it is."""
    return isinstance(value, int) and not isinstance(value, bool)


def _is_number(_: Any, value: Any) -> bool:
    return _is_integer(_, value) or (isinstance(value, float) and math.isfinite(value))


_Validator = jsonschema.validators.extend(
    jsonschema.Draft202012Validator,
    {"pattern": _matches},
    type_checker=jsonschema.Draft202012Validator.TYPE_CHECKER.redefine_many(
        {"integer": _is_integer, "number": _is_number}
    ),
)


class _UniqueKeyLoader(yaml.SafeLoader):
    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[Any] = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if key in seen:
                mark = key_node.start_mark
                raise UserError(f"{mark.name}, line {mark.line + 1}: {key!r} stands here twice; keep one of the two")
            seen.add(key)
        return super().construct_mapping(node, deep)


def _message(error: jsonschema.ValidationError) -> str:
    where = ".".join(str(part) for part in error.absolute_path) or "top level"
    value = json.dumps(error.instance, default=str)
    value = value if len(value) <= 60 else value[:57] + "..."
    match error.validator:
        case "additionalProperties" if isinstance(error.instance, dict):
            known = error.schema.get("properties", {})
            unknown = [key for key in error.instance if key not in known]
            return "; ".join(f"{where}: {_unknown_key(where, key, known)}" for key in unknown)
        case "required":
            missing = [key for key in error.validator_value if key not in error.instance]
            return f"{where}: missing {', '.join(map(repr, missing))}"
        case "enum":
            hint = nearest(str(error.instance), [str(item) for item in error.validator_value])
            return f"{where}: {value} is not allowed, {hint}"
        case "pattern":
            parent = error.parent.instance if error.validator == "propertyNames" and error.parent else None
            rule = error.schema.get("description", f"text that matches {error.validator_value}")
            return f"{where}: {value} is not allowed here; use {rule}" + (f" (in {parent})" if parent else "")
        case "anyOf":
            described = error.schema.get("description") or " or ".join(
                json.dumps(option.get("const", option.get("type", "..."))) for option in error.validator_value
            )
            return f"{where}: {value} is not allowed; allowed: {described}"
        case "uniqueItems":
            twice = sorted({str(item) for item in error.instance if error.instance.count(item) > 1})
            return f"{where}: {', '.join(twice)} stands there more than once; name each once"
        case "minItems" | "minProperties":
            return f"{where}: must not be empty"
        case "type":
            kinds = error.validator_value if isinstance(error.validator_value, list) else [error.validator_value]
            return f"{where}: {value} is not a {' or '.join(kinds)}" + (" (finite)" if "number" in kinds else "")
        case _:
            return f"{where}: {error.message}"


def _unknown_key(where: str, key: Any, known: Iterable[str]) -> str:
    if new := RENAMED.get(f"{where}.{key}"):
        return f"{key!r} is called {new.rsplit('.', 1)[1]!r}; write {new}"
    return f"unknown key {key!r}, {nearest(str(key), known)}"


def _with_defaults(value: dict[str, Any], schema: Mapping[str, Any]) -> dict[str, Any]:
    """Fill in the defaults of ``schema``'s properties, at every depth where they are plain objects."""
    for key, part in schema.get("properties", {}).items():
        if "default" in part:
            value.setdefault(key, copy.deepcopy(part["default"]))
        if isinstance(value.get(key), dict):
            value[key] = _with_defaults(value[key], part)
    return value

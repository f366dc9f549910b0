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

from ceilings.errors import UserError

SCHEMA = json.loads((Path(__file__).parent / "schema.json").read_text())

SHOWN = 60
"""Letters of a value or a key in a message."""

MOST_BITS = 128
"""Of a whole number."""

MOST_NAMES = 20
"""How many names a message lists."""

RENAMED = {"inputs.ring": "inputs.pool"}
"""Keys that have another name now, by their place."""


def checked(config: Mapping[str, Any]) -> dict[str, Any]:
    """``config`` with every default filled in.

    Raises:
        UserError: It does not fit the schema. All problems are named at once.
    """
    if huge := [".".join(path) or "top level" for path in _huge(config)]:
        raise UserError(f"the study cannot be read:\n  {huge[0]}: a number beyond 2**{MOST_BITS}; give a smaller one")
    schema = SCHEMA
    if of_captures(config):  # it measures nothing
        named = {key: value for key, value in config.items() if key not in ("models", "sweeps")}
        schema, config = {**SCHEMA, "required": []}, {"study": "captures", **named}
    errors = list(_Validator(schema).iter_errors(config))
    # Of a number that is no whole one its size is of no interest.
    mistyped = {tuple(error.absolute_path) for error in errors if error.validator == "type"}
    problems = sorted({_message(e) for e in errors if e.validator == "type" or tuple(e.absolute_path) not in mistyped})
    if problems:
        raise UserError("the study cannot be read:\n" + "\n".join(f"  {problem}" for problem in problems))
    filled = _with_defaults(copy.deepcopy(dict(config)), SCHEMA)
    return {"models": {}, "sweeps": {}, **filled}


def of_captures(config: Mapping[str, Any]) -> bool:
    """Whether a study names traces that others made and nothing to measure."""
    return bool(config.get("captures")) and not (config.get("models") or config.get("sweeps"))


def _huge(value: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """Where whole numbers stand that nobody means: Python refuses to print those of thousands of digits."""
    if isinstance(value, int) and value.bit_length() > MOST_BITS:
        yield path
    parts = value.items() if isinstance(value, Mapping) else enumerate(value) if isinstance(value, list) else ()
    for key, part in parts:
        yield from _huge(part, (*path, _cut(str(key))))


def nearest(name: str, known: Iterable[str]) -> str:
    """A hint that completes "X is unknown": the nearest known name, or those there are."""
    known = list(known)
    if not known:
        return "and there are none; define it first"
    folded = {other.casefold(): other for other in reversed(known)}
    if close := difflib.get_close_matches(name.casefold(), folded, n=1):
        return f"did you mean {folded[close[0]]!r}?"
    holding = [other for other in known if len(name) > 2 and name.casefold() in other.casefold()] or known
    rest = f" and {len(holding) - MOST_NAMES} more" if len(holding) > MOST_NAMES else ""
    return f"allowed: {', '.join(holding[:MOST_NAMES])}{rest}"


def no_cell(name: str, cells: Iterable[str]) -> str:
    """The end of a message: there is no such cell, which was perhaps meant, and how there would be one."""
    hint = nearest(name, sorted(cells))
    return f"{name!r} is no cell of the study, {hint}{'' if hint.endswith('?') else '.'} Else let a sweep ask for it"


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


def _message(error: jsonschema.ValidationError) -> str:
    where = ".".join(_cut(str(part)) for part in error.absolute_path) or "top level"
    value = _shown(error.instance)
    rule, limit = error.schema, error.validator_value
    match error.validator:
        case "additionalProperties" if isinstance(error.instance, dict):
            known = rule.get("properties", {})
            unknown = [key for key in error.instance if key not in known]
            return "; ".join(f"{where}: {_unknown_key(where, key, known)}" for key in unknown)
        case "required":
            missing = [key for key in limit if key not in error.instance]
            added = (_added(key, rule.get("properties", {}).get(key, {})) for key in missing)
            return f"{where}: missing {', '.join(map(repr, missing))}; add {', '.join(added)}"
        case "dependentRequired":
            missing = [key for one, keys in limit.items() if one in error.instance for key in keys]
            return f"{where}: one of {', '.join(sorted(limit))} needs the other; add {missing[0]}"
        case "enum":
            return f"{where}: {value} is not allowed, {nearest(str(error.instance), map(str, limit))}"
        case "pattern":
            text = rule.get("description", f"text that matches {limit}")
            return f"{where}: {value} is not allowed here; use {text}"
        case "anyOf" if within := _within(error):
            return "; ".join(sorted(map(_message, within)))
        case "anyOf":
            return f"{where}: {value} is not allowed; allowed: {rule['description']}{_unquoted(error.instance, limit)}"
        case "uniqueItems":
            twice = sorted({str(item) for item in error.instance if error.instance.count(item) > 1})
            return f"{where}: {', '.join(twice)} stands there more than once; name each once"
        case "minItems" | "minProperties" | "minLength" if not error.instance:
            return f"{where}: must not be empty; give {_wanted(rule)}, or remove it"
        case "type" if error.instance is None:
            return f"{where}: nothing stands there; give {_wanted(rule)}, or remove it"
        case "type":
            return f"{where}: {value} is not {_wanted(rule)}{_meant(error.instance, rule)}"
        case "minimum" | "maximum" | "exclusiveMinimum" | "exclusiveMaximum":
            return f"{where}: {value} is out of range; give {_wanted(rule)}{_meant(error.instance, rule)}"
        case "minItems" | "maxItems" | "maxLength" | "maxProperties":
            size = f"{len(error.instance)}, which is {'below' if error.validator == 'minItems' else 'above'} {limit}"
            return f"{where}: {value} has the length {size}; give {rule.get('description', _wanted(rule))}"
        case _:
            return f"{where}: {error.message}; correct it"


def _within(error: jsonschema.ValidationError) -> list[jsonschema.ValidationError]:
    """What is wrong within keys with values, where one alternative alone takes such; else empty."""
    takes = [at for at, rule in enumerate(error.validator_value) if rule.get("type") == "object"]
    if not isinstance(error.instance, dict) or len(takes) != 1:
        return []
    return [each for each in error.context or () if each.relative_schema_path[0] == takes[0]]


def _shown(value: Any) -> str:
    """A value as YAML's reader may have written it, cut short."""
    return _cut(json.dumps(value, default=str, ensure_ascii=False))


def _cut(text: str) -> str:
    return text if len(text) <= SHOWN else f"{text[: SHOWN - 3]}..."


def _wanted(rule: Mapping[str, Any]) -> str:
    """What a rule of the schema allows, in words."""
    kinds = rule["type"] if isinstance(rule["type"], list) else [rule["type"]]
    if kinds in (["integer"], ["number"]):
        noun = "a whole number" if kinds == ["integer"] else "a finite number"
        low, high = rule.get("minimum", rule.get("exclusiveMinimum")), rule.get("maximum", rule.get("exclusiveMaximum"))
        if "exclusiveMinimum" not in rule:
            return f"{noun} from {low} to {high}"
        return f"{noun} above {low} and {'below' if 'exclusiveMaximum' in rule else 'at most'} {high}"
    words = {"array": "a list, such as [A, B]", "object": "keys with values", "boolean": "true or false"}
    return " or ".join(words.get(kind, "text") for kind in kinds)


def _added(key: str, rule: Mapping[str, Any]) -> str:
    """A key that is missing, with what it takes where that is text of a form."""
    return f"{key}: {rule['description']}" if {"pattern", "description"} <= rule.keys() else key


def _meant(value: Any, rule: Mapping[str, Any]) -> str:
    """What was probably meant by a value that is not allowed, as the end of a message."""
    if isinstance(value, bool) and "string" in rule["type"]:
        return "; write it in quotes (YAML reads yes, no, on and off as true and false)"
    if isinstance(value, dict | list | bool | None):
        return ""
    if rule["type"] == "array":
        return f"; write [{value}]"
    if "string" in rule["type"]:
        return f"; write '{value}', in quotes" if _is_number(None, value) and abs(value) < 1 << 64 else ""
    try:
        number = float(value)
    except (ValueError, OverflowError):
        return ""
    high = rule.get("maximum", rule.get("exclusiveMaximum"))
    if rule["type"] == "number" and high == 1 < number < 100:
        return f"; did you mean {number / 100:g}?"
    whole = number.is_integer() and abs(number) < 1 << 53
    meant = int(number) if whole else number
    fits = _is_number(None, meant) and (whole or rule["type"] == "number")
    return (
        f"; write {meant}"
        if fits and not isinstance(value, int) and not list(_Validator(rule).iter_errors(meant))
        else ""
    )


def _unquoted(value: Any, alternatives: Iterable[Mapping[str, Any]]) -> str:
    """The number that stands in quotes, where one alternative takes it, as the end of a message."""
    numbers = [rule for rule in alternatives if rule.get("type") in ("integer", "number")]
    meant = [_meant(value, rule) for rule in numbers if isinstance(value, str)]
    return f"{meant[0]}, without quotes" if any(meant[:1]) else ""


def _unknown_key(where: str, key: Any, known: Iterable[str]) -> str:
    if new := RENAMED.get(f"{where}.{key}"):
        return f"{key!r} is called {new.rsplit('.', 1)[1]!r}; write {new}"
    return f"unknown key {_cut(repr(key))}, {nearest(_cut(str(key)), known)}"


def _with_defaults(value: dict[str, Any], schema: Mapping[str, Any]) -> dict[str, Any]:
    """Fill in the defaults of ``schema``'s properties, at every depth where they are plain objects."""
    for key, part in schema.get("properties", {}).items():
        if "default" in part:
            value.setdefault(key, copy.deepcopy(part["default"]))
        if isinstance(value.get(key), dict):
            value[key] = _with_defaults(value[key], part)
    return value

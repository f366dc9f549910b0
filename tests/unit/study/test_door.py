"""Every key of the schema refuses what is no value of it, in a short message with the key. Made from the schema."""

from __future__ import annotations

import copy
import itertools
import math
from collections.abc import Iterator
from typing import Any

import pytest

from ceilings.errors import UserError
from ceilings.study.config import SCHEMA, checked

STUDY: dict[str, Any] = {
    "study": "s",
    "models": {"m": {"architecture": "distilbert", "weights": "random"}},
    "sweeps": {"a": {"models": ["m"], "runtimes": ["onnxruntime-cpu"], "precisions": ["fp32"], "batches": [1]}},
}
NUMBERS = [math.nan, math.inf, -math.inf, 2**70, -(2**70), 10**5000, 1e308 * 10, True, "5", None, [], {}]
UNSEEN = ["tiny\n", "a\nb", "a\0b", "a\x1bb", "a\u0085b", "a\u2028b", "a\u202eb", "a\u200bb", "a\ufeffb", "a\ud800b"]
TEXTS = ["", None, True, 5, math.nan, ["a", ["b"]], "a" * 10_000, *UNSEEN]
BRACES = ["{x}", "{wildcards.model}"]
BAD = {
    "integer": [*NUMBERS, 1.0, 0.5, -5_000_000_000],
    "number": NUMBERS,
    "string": TEXTS,
    "boolean": ["true", 1, None, math.nan],
    "array": ["abc", None, {}, [[[]]]],
    "object": [[], None, {5: 1}, {None: {}}, {"a\nb": {}}, {"k" * 10_000: {}}],
}


def resolved(rule: dict[str, Any]) -> dict[str, Any]:
    while "$ref" in rule:
        rule = {**SCHEMA["$defs"][rule["$ref"].rsplit("/", 1)[1]], **{k: v for k, v in rule.items() if k != "$ref"}}
    return rule


def rules(rule: dict[str, Any], path: tuple[str | int, ...] = ()) -> Iterator[tuple[tuple[str | int, ...], dict]]:
    """Each place of a study with the rule for it; names that a study gives are ``x``. Free JSON is left out."""
    rule = resolved(rule)
    if rule.get("description") == "any finite value":
        return
    yield path, rule
    for key, part in rule.get("properties", {}).items():
        yield from rules(part, (*path, key))
    if isinstance(rule.get("additionalProperties"), dict):
        yield from rules(rule["additionalProperties"], (*path, "xx"))
    if "items" in rule:
        yield from rules(rule["items"], (*path, 0))
    for part in rule.get("anyOf", ()):
        yield from rules(part, path)


def kinds(rule: dict[str, Any]) -> list[str]:
    if {"enum", "const"} & set(rule):
        return ["string"]
    return [rule["type"]] if isinstance(rule.get("type"), str) else rule.get("type", [])


def put(path: tuple[str | int, ...], value: Any) -> dict[str, Any]:
    """The study with a value at a place, and what must stand around it."""
    study = at = copy.deepcopy(STUDY)
    for key, following in itertools.pairwise(path):
        empty: Any = [] if isinstance(following, int) else {}
        if isinstance(key, int):
            at[:] = [empty]
        elif not isinstance(at.get(key), type(empty)):
            at[key] = empty
        at = at[key]
    if isinstance(path[-1], int):
        at[:] = [value]
    else:
        at[path[-1]] = value
    return study


PLACES = {".".join(map(str, path)): (path, rule) for path, rule in rules(SCHEMA) if path}


def refused(path: tuple[str | int, ...], value: Any) -> bool:
    with pytest.raises(UserError) as caught:
        checked(put(path, value))
    message = str(caught.value)
    key = next(key for key in (*reversed(path[:-1]), path[-1], "") if isinstance(key, str))
    return key in message and len(message) < 3000 and all(c.isprintable() or c == "\n" for c in message)


@pytest.mark.parametrize("place", PLACES)
def test_what_is_no_value_of_a_key_is_refused(place):
    path, _ = PLACES[place]
    every = [rule for other, rule in rules(SCHEMA) if other == path]
    allowed = {kind for rule in every for kind in kinds(rule)}
    for kind in allowed:
        for value in BAD[kind]:
            takes = "string" if isinstance(value, str) else "array" if isinstance(value, list) else None
            number = "integer" if "integer" in allowed else "number"
            takes = "object" if isinstance(value, dict) else number if isinstance(value, int) else takes
            if takes == kind or takes not in allowed:
                assert refused(path, value), (place, value)


@pytest.mark.parametrize("place", [place for place, (_, rule) in PLACES.items() if "string" in kinds(rule)])
def test_braces_never_reach_snakemake(place):
    for value in BRACES:
        assert refused(PLACES[place][0], value), (place, value)


def test_numbers_at_their_limits_are_taken():
    for place, (path, rule) in PLACES.items():
        if kinds(rule) in (["integer"], ["number"]):
            for limit in ("minimum", "maximum"):
                if limit in rule:
                    try:
                        checked(put(path, rule[limit]))
                    except UserError as error:
                        assert place not in str(error), (place, limit, error)

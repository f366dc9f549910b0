"""The words that schemas are written in: each gives a check, which says what is wrong with a value.

A check returns None where nothing is wrong, else a text that begins with the place below the value: ``.key[3] is -1; it
must be at least 0``. Numbers are finite by themselves: what reads them refuses NaN and infinity.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from typing import Any

Check = Callable[[Any], "str | None"]

LARGEST = 1e300
"""Larger numbers are no measurements, and whole ones of that size do not fit into a float."""

WIDEST = 2**63 - 1
"""The largest whole number that a table holds."""

DEEPEST = 30
"""Levels of free content."""

_HALF = re.compile("[\ud800-\udfff]")
"""Half of a character of UTF-16: no encoding writes it."""


def number(low: float = -LARGEST, high: float = LARGEST, above: float | None = None) -> Check:
    """A finite number within bounds; ``above`` excludes its bound."""

    def check(value: Any) -> str | None:
        if type(value) not in (int, float) or not -LARGEST <= value <= LARGEST:
            return f" is {_shown(value)}; it must be a finite number"
        return None if _within(value, low, high, above) else f" is {value:g}; it must be {_bounds(low, high, above)}"

    return check


def whole(low: int = 0, high: int = WIDEST) -> Check:
    """A whole number within bounds."""

    def check(value: Any) -> str | None:
        if type(value) is not int or not low <= value <= high:
            return f" is {_shown(value)}; it must be a whole number {_bounds(low, high, None)}"
        return None

    return check


def numbers(
    low: float = -LARGEST, high: float = LARGEST, above: float | None = None, least: int = 0, integral: bool = False
) -> Check:
    """A list of numbers within bounds, checked as fast as a long one needs."""
    kinds = {int} if integral else {int, float}
    each = number(low, high, above)

    def check(value: Any) -> str | None:
        if not isinstance(value, list) or len(value) < least:
            return f" is {_shown(value)}; it must be a list of {f'at least {least} ' if least else ''}numbers"
        if not value or (set(map(type, value)) <= kinds and each(min(value)) is None and each(max(value)) is None):
            return None
        for index, one in enumerate(value):
            if type(one) not in kinds:
                return f"[{index}] is {_shown(one)}; it must be a {'whole ' if integral else ''}number"
            if flaw := each(one):
                return f"[{index}]{flaw}"
        return None

    return check


def text(pattern: str = "", empty: bool = True) -> Check:
    """A text; all of it fits ``pattern`` if there is one."""

    def check(value: Any) -> str | None:
        if not isinstance(value, str) or not (value or empty):
            return f" is {_shown(value)}; it must be a text"
        if not value.isascii() and _HALF.search(value):
            return " is a text with half a character"
        return f" is {_shown(value)}; it must fit {pattern}" if pattern and not re.fullmatch(pattern, value) else None

    return check


ANY_TEXT = text()


def one_of(*allowed: Any) -> Check:
    """One of a few values."""

    def check(value: Any) -> str | None:
        if any(type(value) is type(one) and value == one for one in allowed):
            return None
        return f" is {_shown(value)}; it must be {' or '.join(map(_shown, allowed))}"

    return check


def flag(value: Any) -> str | None:
    """true or false."""
    return None if isinstance(value, bool) else f" is {_shown(value)}; it must be true or false"


def anything(value: Any, depth: int = DEEPEST) -> str | None:
    """Free content: whatever JSON holds, with finite numbers."""
    if isinstance(value, str):
        return ANY_TEXT(value)
    if isinstance(value, bool) or value is None:
        return None
    if isinstance(value, int | float):
        return number()(value)
    if not depth:
        return " is nested too deeply"
    parts = value.items() if isinstance(value, dict) else enumerate(value)
    for key, one in parts:
        if (isinstance(key, str) and (flaw := ANY_TEXT(key))) or (flaw := anything(one, depth - 1)):
            return f".{_shown(key)[1:-1]}{flaw}" if isinstance(key, str) else f"[{key}]{flaw}"
    return None


def free(value: Any) -> str | None:
    """An object with free content."""
    return anything(value) if isinstance(value, dict) else f" is {_shown(value)}; it must be an object"


def maybe(check: Check) -> Check:
    """The same, or null."""
    return lambda value: None if value is None else check(value)


def many(check: Check, least: int = 0) -> Check:
    """A list."""

    def each(value: Any) -> str | None:
        if not isinstance(value, list) or len(value) < least:
            return f" is {_shown(value)}; it must be a list{f' of at least {least}' if least else ''}"
        return next((f"[{i}]{flaw}" for i, one in enumerate(value) if (flaw := check(one))), None)

    return each


def row(*checks: Check) -> Check:
    """A list with one entry a check."""

    def each(value: Any) -> str | None:
        if not isinstance(value, list) or len(value) != len(checks):
            return f" is {_shown(value)}; it must be a list of {len(checks)}"
        pairs = zip(value, checks, strict=True)
        return next((f"[{i}]{flaw}" for i, (one, check) in enumerate(pairs) if (flaw := check(one))), None)

    return each


def table(check: Check, least: int = 0) -> Check:
    """An object with any names, whose values are alike."""

    def each(value: Any) -> str | None:
        if not isinstance(value, dict) or len(value) < least:
            return f" is {_shown(value)}; it must be an object{f' with at least {least} entry' if least else ''}"
        for name, one in value.items():
            if (flaw := ANY_TEXT(name)) or (flaw := check(one)):
                return f".{name!a:.60}{flaw}".replace("'", "")
        return None

    return each


def record(needed: Mapping[str, Check], further: Mapping[str, Check] | None = None, rest: Check | None = None) -> Check:
    """An object with these keys.

    Args:
        needed: Keys that must be there.
        further: Keys that may be there.
        rest: What other keys hold; None: there are none.
    """
    known = {**needed, **(further or {})}

    def check(value: Any) -> str | None:
        if not isinstance(value, dict):
            return f" is {_shown(value)}; it must be an object"
        if missing := [name for name in needed if name not in value]:
            return f" has no {missing[0]}"
        for name, one in value.items():
            each = known.get(name, rest)
            if each is None:
                return f" has the unknown key {_shown(name)}"
            if flaw := ANY_TEXT(name) or each(one):
                return f".{name}{flaw}"
        return None

    return check


def by(key: str, cases: Mapping[str, Check]) -> Check:
    """One check or another, by the text that an object has under a key."""

    def check(value: Any) -> str | None:
        if not isinstance(value, dict):
            return f" is {_shown(value)}; it must be an object"
        if key not in value:
            return f" has no {key}"
        named = value[key]
        if not isinstance(named, str) or named not in cases:
            return f".{key} is {_shown(named)}; it must be {' or '.join(cases)}"
        return cases[named](value)

    return check


def _within(value: float, low: float, high: float, above: float | None) -> bool:
    return low <= value <= high and (above is None or value > above)


def _bounds(low: float, high: float, above: float | None) -> str:
    parts = [f"above {above:g}"] if above is not None else []
    parts += [f"at least {low:g}"] if low > -LARGEST else []
    parts += [f"at most {high:g}"] if high < WIDEST else []
    return " and ".join(parts) or "finite"


def _shown(value: Any) -> str:
    """A value in few letters."""
    if isinstance(value, int) and not isinstance(value, bool) and abs(value) > WIDEST:
        return f"a whole number of {int(math.log10(abs(value))) + 1} digits"
    if isinstance(value, dict | list):
        kind = "an object" if isinstance(value, dict) else "a list"
        return f"{kind} of {len(value)}" if value else f"an empty {kind.split()[1]}"
    shown = {None: "null", True: "true", False: "false"}.get(value) if isinstance(value, bool | None) else None
    return shown or (ascii(value) if len(ascii(value)) <= 60 else f"{ascii(value)[:57]}...")

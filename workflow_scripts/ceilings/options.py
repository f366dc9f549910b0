"""JSON slices of a study as checked, frozen records. Standard library only."""

from __future__ import annotations

import dataclasses
import types
import typing
from collections.abc import Mapping
from typing import Any, TypeVar

from ceilings.errors import UserError

Record = TypeVar("Record")


def read(kind: type[Record], value: Mapping[str, Any], flag: str) -> Record:
    """Make a dataclass of a JSON object.

    Args:
        kind: A dataclass whose fields are the keys; those without a default must be there.
        value: The object.
        flag: The option that it came by, for messages.

    Raises:
        UserError: An unknown or missing key, or a value of another type.
    """
    fields = {field.name: field for field in dataclasses.fields(kind)}  # type: ignore[arg-type]
    unknown = sorted(set(value) - set(fields))
    if unknown:
        raise UserError(f"{flag} has the unknown key {unknown[0]!r}; known: {', '.join(fields)}")
    hints = typing.get_type_hints(kind)
    for name, field in fields.items():
        if name not in value:
            if field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING:
                raise UserError(f"{flag} lacks the key {name!r}; it needs {', '.join(fields)}")
            continue
        if not fits(value[name], hints[name]):
            raise UserError(f"{flag} has {name} = {value[name]!r}; it must be {hints[name]}")
    return kind(**value)


def fits(value: Any, hint: Any) -> bool:
    """Whether a value is of a type: plain types, lists and mappings of any content, unions, literals."""
    origin = typing.get_origin(hint)
    if origin is typing.Literal:
        return value in typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        return any(fits(value, choice) for choice in typing.get_args(hint))
    if hint is Any:
        return True
    if hint is float:
        return isinstance(value, (int, float)) and not isinstance(value, bool)
    if hint is int:
        return isinstance(value, int) and not isinstance(value, bool)
    return isinstance(value, origin or hint)

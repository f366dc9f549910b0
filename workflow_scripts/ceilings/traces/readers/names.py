"""Names of a recording, each once and with a number."""

from __future__ import annotations

import numpy as np

from ceilings.traces.capture import Integers
from ceilings.traces.tables import Tables

NAMELESS = "(no name)"


class Names:
    """Numbers for texts, from 0.

    Args:
        tables: The texts that are registered there have numbers of their own.
    """

    def __init__(self, tables: Tables) -> None:
        self._tables = tables
        self._numbers: dict[str, int] = {}

    def __len__(self) -> int:
        return len(self._numbers)

    def texts(self) -> tuple[str, ...]:
        """All of them, by number."""
        return tuple(self._numbers)

    def number(self, text: str) -> int:
        """The number of a text."""
        return self._numbers.setdefault(text, len(self._numbers))

    def numbered(self, registered: Integers) -> Integers:
        """Numbers for the numbers under which the file registers texts."""
        used = np.unique(registered)
        texts = self._tables.strings(used.tolist())
        numbers = np.array([self.number(texts.get(one, NAMELESS)) for one in used.tolist()], np.int64)
        return numbers[np.searchsorted(used, registered)]

"""Keeps the garbage collector off what lives as long as the tests: their modules, their libraries and 4,700 items."""

from __future__ import annotations

import gc


def pytest_collection() -> None:
    """Collect tests without a pass over all objects each time that some thousands are new: nothing becomes free."""
    gc.disable()


def pytest_collection_finish() -> None:
    """Count all that there is as permanent: each loop that measures runs the collector first, over the rest only."""
    gc.enable()
    gc.freeze()

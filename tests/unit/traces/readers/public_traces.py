"""Where traces of public projects lie, beside this checkout; they are never copied into it."""

from pathlib import Path

import pytest

FOLDER = next((one / "shared/traces" for one in Path(__file__).parents if (one / "shared/traces").is_dir()), None)

needs_public_traces = pytest.mark.skipif(FOLDER is None, reason="no folder shared/traces beside the checkout")


def trace(name: str) -> Path:
    """A trace by its name."""
    assert FOLDER is not None
    return FOLDER / f"{name}.json.gz"

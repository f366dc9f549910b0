"""What holds for all tests: which signals they take, and what the garbage collector leaves alone."""

from __future__ import annotations

import gc
import signal


def pytest_configure() -> None:
    """Take an interrupt and a hang-up, as programs in a terminal do: ``nohup`` and ``&`` in a script ignore them.

    A test's programs would inherit that, and tests of what a signal ends would wait for ever.
    """
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:
        signal.signal(signal.SIGHUP, signal.SIG_DFL)


def pytest_collection() -> None:
    """Collect tests without a pass over all objects each time that some thousands are new: nothing becomes free.

    Modules, their libraries and 6,600 items live as long as the tests.
    """
    gc.disable()


def pytest_collection_finish() -> None:
    """Count all that there is as permanent: each loop that measures runs the collector first, over the rest only."""
    gc.enable()
    gc.freeze()

"""Which processors the server gets, which the client, and which what lies between them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

APART = "server and client share the only core: each takes time from the other"


class Split(NamedTuple):
    """Processors by their numbers.

    Attributes:
        server: All but those below.
        client: One, since the client is one thread; its hardware sibling stays idle.
        relay: What relays a round trip: one of its own from four cores on, else the client's.
        shared: Whether server and client are on one core.
    """

    server: tuple[int, ...]
    client: tuple[int, ...]
    relay: tuple[int, ...]
    shared: bool


def split(groups: Iterable[Iterable[int]], relayed: bool = False) -> Split:
    """Share physical cores out.

    >>> split([(0,), (1,)])
    Split(server=(0,), client=(1,), relay=(1,), shared=False)
    >>> split([(0, 4), (1, 5), (2, 6), (3, 7)], relayed=True)
    Split(server=(0, 4, 1, 5), client=(3,), relay=(2,), shared=False)

    Args:
        groups: The processors of each physical core.
        relayed: Whether there is a relay.
    """
    cores = [tuple(group) for group in groups]
    if len(cores) == 1:
        return Split(cores[0], cores[0], cores[0], True)
    taken = 2 if relayed and len(cores) >= 4 else 1
    client = cores[-1][:1]
    relay = cores[-2][:1] if taken == 2 else client
    return Split(tuple(one for core in cores[:-taken] for one in core), client, relay, False)

"""Instances on separate cards: which cards they get, and what watches them. The cards are names here."""

import os

import pytest
from unit.measure import colocation_cell

import measure_colocation
from ceilings import gpu
from ceilings.errors import CellFailure
from ceilings.measure import cards_watch, colocation_worker
from ceilings.measure.instance import ProcessHost

UUIDS = ["GPU-a", "GPU-b"]


def card(uuid, slug="nvidia-test"):
    return gpu.Gpu(slug, "NVIDIA Test", uuid, "580.1", (9, 0), 80 << 30)


def test_instances_get_cards_of_their_kind_in_cuda_s_order(monkeypatch):
    there = [card("GPU-x", "nvidia-other"), *map(card, UUIDS)]
    monkeypatch.setattr(gpu, "ask_every", lambda: there)
    assert measure_colocation.cards_of("nvidia-test", 2) == UUIDS
    with pytest.raises(CellFailure, match="3 instances need 3 cards of nvidia-test, and 2 can be seen") as caught:
        measure_colocation.cards_of("nvidia-test", 3)
    assert caught.value.kind == "unsupported"


@pytest.mark.slow
def test_each_process_sees_its_card_alone_and_each_card_is_watched(tmp_path, monkeypatch):
    seen, watched = {}, []

    class Watch:
        def __init__(self, uuid, ours):
            watched.append((uuid, ours))

        def __enter__(self):
            return self

        def __exit__(self, *_):
            pass

        def begin(self):
            pass

        def end(self):
            return {"activity": None}

        def flags(self):
            return ["hot"]

        def facts(self):
            return {"refused": {}}

    class Seen(ProcessHost):
        def __init__(self, task, variables):
            super().__init__(task, variables)
            seen[self.pid] = variables

    monkeypatch.setattr(cards_watch, "GpuWatch", Watch)
    monkeypatch.setattr(colocation_worker, "ProcessHost", Seen)
    monkeypatch.setitem(colocation_worker.SETTLING_SECONDS, "cuda", 0.01)
    task = colocation_cell.make(tmp_path, "cards") | {"gpu": "GPU-a", "cards": UUIDS}
    measured = colocation_worker.measure(task)
    assert measured["failure"] is None
    assert [one["CUDA_VISIBLE_DEVICES"] for one in seen.values()] == UUIDS
    assert watched == [(uuid, {os.getpid(), pid}) for uuid, pid in zip(UUIDS, seen, strict=True)]
    assert {window["gpu"] for window in measured["windows"]} == {None}
    assert measured["gpu"] == {"cards": [{"uuid": uuid, "refused": {}} for uuid in UUIDS]}
    assert {"card 1: hot", "card 2: hot"} <= set(measured["flags"])

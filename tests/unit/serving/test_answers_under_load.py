"""A server whose answers turn wrong after the check before the loads: no wrong answer gets a latency."""

from __future__ import annotations

import json
import threading

import numpy as np
import pytest
from unit.serving import pools, served_model
from unit.serving.scripted_server import ScriptedServer, answer, json_answer

from ceilings.models import pool
from ceilings.report.tables import served_windows
from ceilings.serving import own_answers, session

CELL = "onnxruntime-cpu/tiny/fp32/b1"
ELEMENTS = [served_model.element(seed) for seed in range(8)]
EXPECTED = [served_model.expected(**one).astype(np.float32) for one in ELEMENTS]
COUNTED = "nv_inference_request_success"
KINDS = {"FP32": np.float32, "INT64": np.int64}


class Turning:
    """Answers rightly until somebody has asked what it is, which is when the loads begin; then as ``wrong`` says.

    Its metrics count its requests, and one more of another model at each look once the loads have begun.
    """

    def __init__(self, wrong):
        self._wrong, self._turned = wrong, False
        self._asked, self._others, self._lock = 0, 0, threading.Lock()

    def __call__(self, connection, head, body):
        path = head.split(b" ")[1].decode()
        self._turned |= path == "/v2"
        if path == "/metrics":
            self._others += self._turned
            counted = (
                f'{COUNTED}{{model="m",version="1"}} {self._asked}\n{COUNTED}{{model="b",version="1"}} {self._others}\n'
            )
            connection.sendall(f"HTTP/1.1 200 OK\r\nContent-Length: {len(counted)}\r\n\r\n{counted}".encode())
        elif path.endswith("/stats"):
            connection.sendall(json_answer("404 Not Found", {"error": "no statistics"}))
        elif not path.endswith("/infer"):
            connection.sendall(json_answer("200 OK", {"name": "turning", "version": "1", "extensions": []}))
        else:
            with self._lock:
                self._asked += 1
            right = served_model.expected(**read(head, body)).astype(np.float32)
            connection.sendall(self._wrong(right) if self._turned else answer({"y": right}))


def read(head, body):
    """The inputs of a request."""
    at = int(head.lower().partition(b"inference-header-content-length:")[2].partition(b"\r\n")[0])
    arrays = {}
    for one in json.loads(body[:at])["inputs"]:
        size = one["parameters"]["binary_data_size"]
        arrays[one["name"]] = np.frombuffer(body[at : at + size], KINDS[one["datatype"]]).reshape(one["shape"])
        at += size
    return arrays


def another(right):
    """What another request gets."""
    index = next((at for at, one in enumerate(EXPECTED) if np.array_equal(one, right)), 0)
    return answer({"y": EXPECTED[(index + 1) % len(EXPECTED)]})


def shorter(right):
    """An answer whose last number is missing, with lengths that fit each other."""
    head, _, body = answer({"y": right}).partition(b"\r\n\r\n")
    before, after = (f"\r\nContent-Length: {length}".encode() for length in (len(body), len(body) - 4))
    return head.replace(before, after) + b"\r\n\r\n" + body[:-4]


def measured(folder, wrong, counted=False):
    """The part of a record that measuring such a server gives."""
    task = served_model.task(folder)
    arrays = {name: np.stack([one[name] for one in ELEMENTS]) for name in ELEMENTS[0]}
    inputs = pools.write(folder / "inputs.npz", arrays)
    pool.save_outputs(folder / "reference.npz", {"y": np.stack(EXPECTED)}, pool.digest(arrays))
    files = {"inputs": inputs, "reference": folder / "reference.npz"} | {
        name: task[name] for name in ("artifact", "workload")
    }
    with ScriptedServer(Turning(wrong)) as server:
        deployment = {
            **{"server": f"http://{server.address}", "cells": [CELL], "endpoint_models": {CELL: "m"}},
            **{"concurrency": [2], "rates": [100]},
            **({"metrics": f"http://{server.address}"} if counted else {}),
        }
        spec = {
            **{"deployment": deployment, "cells": {CELL: {**task["spec"], "tolerance": 1e-3, "packages": {}}}},
            **{"protocol": {"window_seconds": 0.2, "rounds": 1, "warmup_seconds": 0.05}, "seed": 0, "packages": {}},
        }
        return session.run({"deployment": "d", "device": "cpu-test", "run": 1, "spec": spec, "files": {CELL: files}})


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        (another, "8 requests of 8 belonged to another request"),
        (lambda right: answer({"y": right * np.nan}), "8 requests of 8 differed from what the same request got alone"),
    ],
)
def test_wrong_answers_under_a_load_end_the_run(tmp_path, wrong, words):
    record = measured(tmp_path, wrong)
    assert record["status"] == "failed" and record["failure"]["kind"] == "parity"
    assert record["failure"]["message"] == f"{CELL}: with 2 clients, an answer to {words}"


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        (
            lambda right: json_answer("200 OK", {"error": "overloaded"}),
            "an error with the status of an answer: overloaded",
        ),
        (shorter, "the tensor 'y' came with 8 bytes; FP32 [1, 3] has 12"),
    ],
)
def test_what_is_no_answer_under_a_load_is_a_request_that_failed(tmp_path, wrong, words):
    record = measured(tmp_path, wrong)
    assert record["status"] == "ok"
    for window in record["windows"]:
        assert window["failed"] == {words: window["sent"]}
        assert window["answered"] == window["answered_inside"] == 0 and window["latency_ns"] == []


def test_right_answers_under_a_load_are_counted(tmp_path):
    record = measured(tmp_path, lambda right: answer({"y": right * np.float32(1 + 1e-6)}))
    assert record["status"] == "ok"
    assert all(window["answered"] == window["sent"] > 0 == len(window["failed"]) for window in record["windows"])


def test_requests_to_other_models_are_counted_beside_each_window(tmp_path):
    record = measured(tmp_path, lambda right: answer({"y": right}), counted=True)
    assert record["status"] == "ok", record["failure"]
    for window in record["windows"]:
        counted = window["server"]
        assert counted["requests"] == window["answered"] > 0
        assert list(counted["others"]) == ["b/1"] and counted["others"]["b/1"] > 0
        assert served_windows.faults(window)[-1] == "other models of the server were asked meanwhile: b/1"


def test_an_answer_has_changed_where_it_is_far_from_the_one_alone():
    alone = {0: {"y": np.array([1.0, 2.0])}, 1: {"y": np.array([np.nan, 2.0])}}
    assert own_answers.changed(alone, {0: {"y": np.array([1.0, 2.1])}}, 0.1) == []
    assert own_answers.changed(alone, {0: {"y": np.array([1.0, 2.1])}}, 0.01) == [0]
    assert own_answers.changed(alone, {0: {"y": np.array([1.0, np.nan])}}, 0.1) == [0]
    assert own_answers.changed(alone, {0: {"y": np.array([1.0])}}, 0.1) == [0]
    assert own_answers.changed(alone, {1: {"y": np.array([np.nan, 2.0])}}, 0.1) == [], "as it was alone"


def test_texts_are_compared_by_their_bytes():
    texts = {0: {"t": np.array([b"ab", b"c"], object)}, 1: {"t": np.array([b"ab", b"d"], object)}}
    assert own_answers.changed(texts, texts, 0.0) == []
    assert own_answers.swapped(texts, {0: texts[1], 1: texts[0]}) == [0, 1]

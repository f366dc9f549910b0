"""The recorder on records of CUPTI's own classes. Only what hands them over needs a GPU."""

from __future__ import annotations

import ctypes
import threading

import pytest
from unit.traces.test_store import same

from ceilings.errors import UserError
from ceilings.traces import calls, health, store
from ceilings.traces.cupti import UNRECORDED, CuptiRecorder, demangled

cupti = pytest.importorskip("cupti.cupti")


def record(kind: str, start: int, end: int, correlation: int, **fields):
    classes = {
        "RUNTIME": cupti.ActivityAPI,
        "DRIVER": cupti.ActivityAPI,
        "CONCURRENT_KERNEL": cupti.ActivityKernel10,
        "MEMCPY": cupti.ActivityMemcpy6,
        "MEMSET": cupti.ActivityMemset4,
    }
    made = classes[kind]()
    common = {"kind": int(cupti.ActivityKind[kind]), "start": start, "end": end, "correlation_id": correlation}
    further = (
        {"thread_id": threading.get_native_id(), "process_id": 1, "return_value": 0}
        if classes[kind] is cupti.ActivityAPI
        else {"device_id": 0, "context_id": 1, "stream_id": 7, "graph_node_id": 0}
    )
    for name, value in {**common, **further, **fields}.items():
        setattr(made, name, value)
    # Never to be freed: CUPTI's bindings look for the buffer of a record that goes, and these have none.
    ctypes.pythonapi.Py_IncRef(ctypes.py_object(made))
    return made


RUNTIME, DRIVER = cupti.runtime_api_trace_cbid, cupti.driver_api_trace_cbid
EPOCH = 1_790_000_000_000_000_000  # ns: more than a float holds


def records() -> list:
    t = EPOCH
    return [
        record("CONCURRENT_KERNEL", t + 25, t + 40, 3, name="_ZN7cutlass6KernelIiEEvT_"),
        record("CONCURRENT_KERNEL", t + 60, t + 70, 4, name="triton_poi_fused_add_0", graph_node_id=1 << 63),
        record("CONCURRENT_KERNEL", t + 72, t + 80, 4, name="triton_poi_fused_add_0", graph_node_id=5),
        record("MEMCPY", t + 90, t + 95, 5, bytes=1024, copy_kind=2),
        record("MEMSET", t + 96, t + 99, 6, bytes=4),
        record("RUNTIME", t + 10, t + 20, 3, cbid=int(RUNTIME.cudaLaunchKernel_v7000)),
        record("DRIVER", t + 12, t + 18, 3, cbid=int(DRIVER.cuLaunchKernel)),
        record("RUNTIME", t + 45, t + 50, 4, cbid=int(RUNTIME.cudaGraphLaunch_v10000)),
        record("RUNTIME", t + 51, t + 52, 5, cbid=int(RUNTIME.cudaMemcpyAsync_v3020)),
        record("DRIVER", t + 53, t + 54, 6, cbid=int(DRIVER.cuMemsetD32Async)),
        record("RUNTIME", t + 55, t + 100, 7, cbid=int(RUNTIME.cudaStreamSynchronize_v3020)),
        record("RUNTIME", t + 101, t + 102, 8, cbid=60_000),
    ]


def test_records_become_a_sound_capture(tmp_path):
    recorder = CuptiRecorder(tmp_path / "raw.sqlite")
    recorder._begun.append(EPOCH + 5)
    recorder._ended.append(EPOCH + 105)
    kept = records()
    recorder._completed(kept)
    assert recorder._errors == []
    recorded = recorder.capture()
    assert health.refuse_unsound(recorded, "it") == []
    named = [recorded.names[name] for name in recorded.calls.name]
    assert [calls.plain(name) for name in named] == [
        *("cudaLaunchKernel", "cudaGraphLaunch", "cudaMemcpyAsync", "cuMemsetD32Async", "cudaStreamSynchronize"),
        "call 60000",
    ]
    assert recorded.operations.call.tolist() == [0, 1, 1, 2, 3]
    assert recorded.operations.node.tolist() == [False, True, True, False, False]
    assert recorded.operations.start.tolist() == [20, 55, 67, 85, 91]
    assert "void cutlass::Kernel<int>(int)" in recorded.names
    assert (recorded.marks.start.tolist(), recorded.marks.thread.tolist()) == ([0], recorded.calls.thread[:1].tolist())
    store.write(tmp_path / "kept.sqlite", recorded)
    assert same(store.read(tmp_path / "kept.sqlite"), recorded)


def test_threads_that_cupti_numbers_in_its_own_way(tmp_path):
    recorder = CuptiRecorder(tmp_path / "raw.sqlite")
    recorder._begun.append(EPOCH + 5)
    recorder._ended.append(EPOCH + 105)
    kept = records()
    for one in kept[5:]:
        one.thread_id = 0x9ABCDEF0
    recorder._completed(kept)
    recorded = recorder.capture()
    assert set(recorded.marks.thread.tolist()) == set(recorded.calls.thread.tolist())


def test_a_record_that_cannot_be_read_is_an_error_not_a_gap(tmp_path):
    recorder = CuptiRecorder(tmp_path / "raw.sqlite")
    broken = records()[:1]
    recorder._completed([*broken, object()])
    assert "no attribute 'kind'" in recorder._errors[0]
    recorder._completed([record("CONCURRENT_KERNEL", 0, 0, 3, name="gemm")])
    assert "an operation without times" in recorder._errors[1]


def test_the_names_that_the_recorder_calls_exist():
    for name in (
        *("set_thread_id_type", "activity_register_callbacks", "activity_enable", "activity_disable"),
        *("activity_flush_all", "activity_get_num_dropped_records", "get_timestamp"),
        *("activity_enable_runtime_api", "activity_enable_driver_api"),
    ):
        assert callable(getattr(cupti, name)), name


def test_calls_that_only_ask_do_nothing_that_the_account_knows():
    names = [call.name for calls in (RUNTIME, DRIVER) for call in calls]
    asking = [name for name in names if UNRECORDED.search(name)]
    assert {"cudaGetDevice_v3020", "cudaGetLastError_v3020", "cuKernelGetAttribute"} <= set(asking)
    assert {calls.kind(name) for name in asking if "Node" not in name} == {calls.OTHER}  # nodes: of a graph being built


def test_without_a_driver_it_says_so(tmp_path):
    try:
        cupti.get_timestamp()
    except Exception:
        with pytest.raises(UserError, match="CUPTI cannot record here"):
            CuptiRecorder(tmp_path / "raw.sqlite").start()
    else:
        pytest.skip("there is a driver")


def test_demangling():
    assert demangled("_ZN2at6native29vectorized_elementwise_kernelIiEEvT_") == (
        "void at::native::vectorized_elementwise_kernel<int>(int)"
    )
    assert demangled("nvjet_hsh_64x8_64x16_4x1_v_bz_TNT") == "nvjet_hsh_64x8_64x16_4x1_v_bz_TNT"
    assert demangled("_Znot a symbol") == "_Znot a symbol"

"""Limits of control groups, from trees as Linux shows them."""

from __future__ import annotations

import pytest

from ceilings import host as hosts
from ceilings.control_groups import cpu_quota, memory_limit, throttled

TOP = "sys/fs/cgroup"
V2, V1 = "proc/self/cgroup", "proc/self/cgroup"


@pytest.fixture
def tree(tmp_path):
    def tree(files):
        for name, content in files.items():
            path = tmp_path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(f"{content}\n")
        return tmp_path

    return tree


@pytest.mark.parametrize(
    ("files", "cores"),
    [
        ({}, None),
        ({V2: "0::/", f"{TOP}/cpu.max": "max 100000"}, None),
        ({V2: "0::/", f"{TOP}/cpu.max": "150000 100000"}, 1.5),
        ({V2: "0::/", f"{TOP}/cpu.max": "50000 100000"}, 0.5),
        ({V2: "0::/", f"{TOP}/cpu.max": "nonsense"}, None),
        # the tightest on the way up, wherever it stands
        ({V2: "0::/a/b/c", f"{TOP}/a/b/c/cpu.max": "max 100000", f"{TOP}/a/cpu.max": "300000 100000"}, 3),
        ({V2: "0::/a/b", f"{TOP}/a/b/cpu.max": "800000 100000", f"{TOP}/a/cpu.max": "200000 100000"}, 2),
        ({V2: "0::/a", f"{TOP}/b/cpu.max": "100000 100000"}, None),
        # a container that sees the host's path and its own group as the top
        ({V2: "0::/docker/0123", f"{TOP}/cpu.max": "250000 100000"}, 2.5),
        ({V2: "0::/../../x", f"{TOP}/cpu.max": "250000 100000"}, 2.5),
        # version 1
        ({V1: "3:cpu,cpuacct:/", f"{TOP}/cpu/cpu.cfs_quota_us": "-1", f"{TOP}/cpu/cpu.cfs_period_us": "100000"}, None),
        (
            {
                V1: "4:memory:/\n3:cpu,cpuacct:/docker/1",
                f"{TOP}/cpu,cpuacct/docker/1/cpu.cfs_quota_us": "400000",
                f"{TOP}/cpu,cpuacct/docker/1/cpu.cfs_period_us": "100000",
            },
            4,
        ),
    ],
)
def test_quota(tree, files, cores):
    assert cpu_quota(tree(files)) == cores


STAT = "usage_usec 9\nnr_periods 50\nnr_throttled {}\nthrottled_usec {}"


@pytest.mark.parametrize(
    ("files", "stopped"),
    [
        ({}, None),
        ({V2: "0::/", f"{TOP}/cpu.stat": "usage_usec 9"}, None),  # the top of all, which no quota limits
        ({V2: "0::/", f"{TOP}/cpu.stat": STAT.format(0, 0)}, (0, 0)),
        ({V2: "0::/a", f"{TOP}/a/cpu.stat": STAT.format(3, 120_000)}, (3, 0.12)),
        (
            {V2: "0::/a/b", f"{TOP}/a/b/cpu.stat": STAT.format(0, 0), f"{TOP}/a/cpu.stat": STAT.format(7, 2_000_000)},
            (7, 2),
        ),
        (
            {V1: "3:cpu,cpuacct:/", f"{TOP}/cpu/cpu.stat": "nr_periods 5\nnr_throttled 4\nthrottled_time 500000000"},
            (4, 0.5),
        ),
    ],
)
def test_periods_in_which_a_quota_stopped_the_group(tree, files, stopped):
    assert throttled(tree(files)) == stopped


@pytest.mark.parametrize(
    ("files", "limit"),
    [
        ({V2: "0::/", f"{TOP}/memory.max": "max"}, None),
        ({V2: "0::/a", f"{TOP}/a/memory.max": "max", f"{TOP}/memory.max": str(4 << 30)}, 4 << 30),
        ({V1: "4:memory:/x", f"{TOP}/memory/x/memory.limit_in_bytes": "9223372036854771712"}, None),
        ({V1: "4:memory:/x", f"{TOP}/memory/memory.limit_in_bytes": "1024"}, 1024),
    ],
)
def test_memory(tree, files, limit):
    assert memory_limit(tree(files)) == limit


@pytest.mark.parametrize(("quota", "cores"), [(None, 8), (64.0, 8), (3.9, 3), (1.0, 1), (0.25, 1)])
def test_threads_are_whole_cores_of_the_quota(monkeypatch, quota, cores):
    monkeypatch.setattr(hosts, "physical_cores", lambda: [(core,) for core in range(8)])
    monkeypatch.setattr(hosts, "cpu_quota", lambda: quota)
    host = hosts.detect({})
    assert (host.cores, host.cpu_quota) == (cores, quota)

"""The native thread pool."""

from __future__ import annotations

import ctypes
import os
import threading
import time
from collections.abc import Iterator

import pytest

from native_harness import pool_library


def pool_probe() -> ctypes.CDLL:
    return pool_library("pool_probe.c")


@pytest.fixture(params=[1, 2, 3, 4])
def pool(request: pytest.FixtureRequest) -> Iterator[ctypes.c_void_p]:
    probe = pool_probe()
    handle = ctypes.c_void_p(probe.sparrow_pool_create(request.param))
    assert probe.sparrow_pool_threads(handle) == request.param
    yield handle
    probe.sparrow_pool_destroy(handle)


def test_every_index_runs_exactly_once(pool: ctypes.c_void_p) -> None:
    assert pool_probe().probe_exactly_once(pool, 20000, 37) == 0


def test_nested_calls_run_exactly_once(pool: ctypes.c_void_p) -> None:
    for _ in range(50):
        assert pool_probe().probe_nested(pool, 16, 32) == 0


def test_tasks_longer_than_any_spinning(pool: ctypes.c_void_p) -> None:
    for n in (2, 3, 5):
        for _ in range(5):
            assert pool_probe().probe_lasting(pool, n, ctypes.c_uint64(200_000)) == 0


def test_two_python_threads_share_one_pool(pool: ctypes.c_void_p) -> None:
    wrong: list[int] = []

    def call() -> None:
        wrong.append(pool_probe().probe_exactly_once(pool, 20000, 29))

    threads = [threading.Thread(target=call) for _ in range(2)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert wrong == [0, 0]


def test_create_and_destroy_leave_nothing_behind() -> None:
    probe = pool_probe()
    for threads in (-1, 1, 2, 5) * 20:
        handle = ctypes.c_void_p(probe.sparrow_pool_create(threads))
        assert probe.probe_exactly_once(handle, 3, 8) == 0
        probe.sparrow_pool_destroy(handle)
    probe.sparrow_pool_destroy(None)


# Of a pause workers poll the first 0.3 ms; who was woken within 2 ms polls as long the next time.
PAUSES_NS = (200_000, 500_000, 3_000_000)


@pytest.mark.parametrize("pause", PAUSES_NS)
def test_workers_that_poll_linger_or_sleep_run_every_index_once(
    pool: ctypes.c_void_p, pause: int
) -> None:
    assert pool_probe().probe_after_pauses(pool, 20, 9, ctypes.c_uint64(pause)) == 0


def test_regions_after_pauses_of_every_length_by_turns(pool: ctypes.c_void_p) -> None:
    for pause in (*PAUSES_NS, *reversed(PAUSES_NS)) * 3:
        assert pool_probe().probe_after_pauses(pool, 2, 9, ctypes.c_uint64(pause)) == 0


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="threads choose no core here")
@pytest.mark.parametrize("threads", [2, 3])
def test_workers_that_wake_where_the_caller_runs(threads: int) -> None:
    probe, cores = pool_probe(), os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(cores)})  # workers inherit it
    try:
        handle = ctypes.c_void_p(probe.sparrow_pool_create(threads))
    finally:
        os.sched_setaffinity(0, cores)
    for own in ({min(cores)}, cores):
        os.sched_setaffinity(0, own)
        try:
            for pause in PAUSES_NS:
                assert probe.probe_after_pauses(handle, 10, 9, ctypes.c_uint64(pause)) == 0
        finally:
            os.sched_setaffinity(0, cores)
    probe.sparrow_pool_destroy(handle)  # joins workers that sleep and have not been woken


def worker_cores() -> list[set[int]]:
    """The cores that threads of this process other than this one may use."""
    others = [int(t) for t in os.listdir("/proc/self/task") if int(t) != threading.get_native_id()]
    return [os.sched_getaffinity(t) for t in others]


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="threads choose no core here")
def test_workers_come_to_callers_that_sleep_between_calls() -> None:
    probe, cores = pool_probe(), os.sched_getaffinity(0)
    if len(cores) < 2:
        pytest.skip("one core: nobody can work beside the caller")
    before = len(worker_cores())
    handle = ctypes.c_void_p(probe.sparrow_pool_create(2))
    shared = []
    for _ in range(40):
        time.sleep(0.004)
        shared.append(probe.probe_shared(handle, ctypes.c_uint64(2_000_000)))
    allowed = worker_cores()
    probe.sparrow_pool_destroy(handle)
    assert min(shared) >= 0
    assert sum(shared) >= 4
    assert len(allowed) == before + 1
    # it left at most its caller's core
    assert all(a <= cores and len(cores - a) <= 1 for a in allowed)


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="threads choose no core here")
def test_a_worker_that_was_given_one_core_keeps_it() -> None:
    probe, cores = pool_probe(), os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(cores)})  # the worker inherits it, and meets its caller there
    try:
        handle = ctypes.c_void_p(probe.sparrow_pool_create(2))
        for _ in range(30):
            time.sleep(0.002)
            assert probe.probe_shared(handle, ctypes.c_uint64(100_000)) >= 0
        assert {min(cores)} in worker_cores()
    finally:
        os.sched_setaffinity(0, cores)
    probe.sparrow_pool_destroy(handle)


@pytest.mark.parametrize("task_ns", [0, 50_000, 3_000_000])
def test_short_and_long_regions_by_turns_after_sleep(pool: ctypes.c_void_p, task_ns: int) -> None:
    for k in range(60):  # many enough for callers to be left alone, and for retries
        time.sleep(0.001)
        assert pool_probe().probe_shared(pool, ctypes.c_uint64(task_ns if k % 20 == 19 else 0)) >= 0


def test_two_pools_by_turns() -> None:
    probe = pool_probe()
    pools = [ctypes.c_void_p(probe.sparrow_pool_create(n)) for n in (2, 3)]
    for pause in PAUSES_NS * 5:
        for handle in pools:
            assert probe.probe_after_pauses(handle, 1, 9, ctypes.c_uint64(pause)) == 0
    for handle in pools:
        probe.sparrow_pool_destroy(handle)


def test_pools_end_while_their_workers_poll_or_sleep() -> None:
    probe = pool_probe()
    for pause in (0, *PAUSES_NS):
        for _ in range(5):
            handle = ctypes.c_void_p(probe.sparrow_pool_create(3))
            probe.probe_after_pauses(handle, 2, 3, ctypes.c_uint64(pause))
            probe.sparrow_pool_destroy(handle)

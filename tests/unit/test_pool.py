"""The native thread pool."""

from __future__ import annotations

import ctypes
import threading
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


def test_wakes_after_parking() -> None:
    probe = pool_probe()
    handle = ctypes.c_void_p(probe.sparrow_pool_create(2))
    ns = (ctypes.c_uint64 * 200)()
    probe.probe_fork_join(handle, 8, 200, ctypes.c_uint64(200_000), ns)
    assert all(ns)
    probe.sparrow_pool_destroy(handle)

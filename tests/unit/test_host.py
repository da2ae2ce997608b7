"""Loading and running a model library."""

from __future__ import annotations

import gc
import os
import re
import shutil
import sys
import threading
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from axpy import axpy_library, axpy_weights, random_inputs
from sparrow.device import abi, host
from sparrow.device.build import NATIVE, Unit, find_toolchain
from sparrow.device.cpu import host_isa, isas_of_flags
from sparrow.device.here import host_machine
from sparrow.device.host import HostLibrary, Session, aligned
from sparrow.device.pool import Pool
from sparrow.device.runners import find_runner
from sparrow.errors import BadBundle, BadInput


@pytest.fixture(params=[0, 1 << 20], ids=["in_place", "staged"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Either way that a session takes inputs and outputs: by their addresses, or copied."""
    monkeypatch.setattr(host, "STAGED_BYTES", request.param)


both_ways = pytest.mark.usefixtures("way")


def test_info_is_parsed() -> None:
    info = axpy_library().info
    assert (info.name, info.isa, info.hooks, info.linked_weights) == ("axpy", "scalar", False, 0)
    assert (info.weights_bytes, info.workspace_bytes, info.state_bytes) == (64, 4096, 16)
    axpy, above = info.entries
    assert [t.name for t in axpy.inputs] == ["x", "bé"]
    assert axpy.inputs[0].shape == (1024,)
    assert axpy.inputs[0].dtype.name == "float32"
    assert (axpy.outputs[0].scales, axpy.outputs[0].zero_points) == ((0.5,), (-3,))
    assert (above.outputs[0].count_of, above.outputs[1].shape) == (1, ())
    assert (axpy.n_steps, axpy.steps) == (2, ())
    assert axpy_library("-DSPARROW_HOOKS").info.entries[0].steps == ("scale_add", "count_calls")


@both_ways
def test_runs_and_keeps_state_until_reset() -> None:
    x, b = random_inputs()
    session = Session(axpy_library(), axpy_weights(3.0))
    want = np.float32(3) * x + b
    for calls in range(3):
        (y,) = session.run(0, [x, b])
        np.testing.assert_array_equal(y[1:], want[1:])
        assert y[0] == want[0] + np.float32(calls)
    assert session.state()["calls"] == 3
    session.reset()
    assert session.state()["calls"] == 0
    np.testing.assert_array_equal(session.run(0, [x, b])[0], want)


@pytest.mark.parametrize("threads", [2, 3, 4])
def test_thread_count_changes_no_bit(threads: int) -> None:
    x, b = random_inputs()
    (want,) = Session(axpy_library(), axpy_weights(0.3)).run(0, [x, b])
    session = Session(axpy_library(), axpy_weights(0.3), threads=threads)
    for _ in range(500):
        session.reset()
        assert session.run(0, [x, b])[0].tobytes() == want.tobytes()


def test_sessions_in_two_threads_share_library_weights_and_pool() -> None:
    weights, pool = axpy_weights(0.7), Pool(2)
    failures: list[int] = []

    def work(seed: int) -> None:
        x, b = random_inputs(seed)
        session = Session(axpy_library(), weights, pool=pool)
        want = session.run(0, [x, b])[0]
        for i in range(2000):
            session.reset()
            if not np.array_equal(session.run(0, [x, b])[0], want):
                failures.append(i)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in (1, 2)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert failures == []


@both_ways
def test_one_session_in_two_threads_takes_turns() -> None:
    session = Session(axpy_library(), axpy_weights(1.0), threads=2)
    x, b = random_inputs()
    threads = [
        threading.Thread(target=lambda: [session.run(0, [x, b]) for _ in range(1000)])
        for _ in range(2)
    ]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert session.state()["calls"] == 2000


@both_ways
def test_inputs_of_any_layout() -> None:
    x, b = random_inputs()
    session = Session(axpy_library(), axpy_weights(2.0))
    (want,) = session.run(0, [x, b])
    read_only = x.copy()
    read_only.flags.writeable = False
    unaligned = np.empty(4097, np.uint8)[1:].view(np.float32)
    unaligned[:] = x
    for same in (read_only, unaligned, np.repeat(x, 2)[::2], x[::-1].copy()[::-1]):
        session.reset()
        np.testing.assert_array_equal(session.run(0, [same, b])[0], want)


@both_ways
def test_out_is_written_in_place() -> None:
    x, b = random_inputs()
    session = Session(axpy_library(), axpy_weights(2.0))
    y = np.zeros(1024, np.float32)
    assert session.run(0, [x, b], out=[y])[0] is y
    np.testing.assert_array_equal(y, 2 * x + b)
    session.reset()
    (new,) = session.run(0, [x + 1, b])
    np.testing.assert_array_equal(y, 2 * x + b)
    np.testing.assert_array_equal(new, 2 * (x + 1) + b)


@both_ways
def test_outputs_and_inputs_stay_the_callers() -> None:
    x, b = random_inputs()
    session = Session(axpy_library(), axpy_weights(2.0))
    given = x.copy(), b.copy()
    (first,) = session.run(0, given)
    kept = first.copy()
    assert session._calls[0].staged == (host.STAGED_BYTES > 0)
    with pytest.raises(BadInput, match="'bé'"):
        session.run(0, [np.zeros_like(x), b[:3]])
    session.reset()
    (second,) = session.run(0, [x[::-1].copy(), b])
    np.testing.assert_array_equal(first, kept)
    np.testing.assert_array_equal(second, 2 * x[::-1] + b)
    np.testing.assert_array_equal(given, (x, b))
    assert first.flags.owndata and first.flags.carray


@both_ways
def test_data_dependent_length() -> None:
    x, _ = random_inputs()
    session = Session(axpy_library(), axpy_weights(0.5))
    values, count = session.run(1, [x])
    np.testing.assert_array_equal(values, x[x > 0.5])
    assert count == (x > 0.5).sum()
    assert session.run(1, [np.zeros_like(x)])[0].shape == (0,)


@both_ways
def test_model_status_becomes_one_line() -> None:
    session = Session(axpy_library(), axpy_weights(0.5))
    with pytest.raises(BadInput, match="above: an input value is outside"):
        session.run(1, [np.full(1024, np.nan, np.float32)])


@both_ways
def test_wrong_calls_are_refused() -> None:
    x, b = random_inputs()
    session = Session(axpy_library(), axpy_weights(1.0))
    with pytest.raises(BadInput, match=r"'bé': expected float32 of shape \(1024,\), got float64"):
        session.run(0, [x, b.astype(np.float64)])
    with pytest.raises(BadInput, match=r"got float32 of shape \(1023,\)"):
        session.run(0, [x[:-1], b])
    with pytest.raises(BadInput, match="1 inputs, entry 'axpy' has 2"):
        session.run(0, [x])
    with pytest.raises(BadInput, match="entry point 2"):
        session.run(2, [x])
    with pytest.raises(BadInput, match="entry point -1"):
        session.run(-1, [x])
    with pytest.raises(BadInput, match="not C-contiguous"):
        session.run(0, [x, b], out=[np.zeros(2048, np.float32)[::2]])
    with pytest.raises(BadInput, match="output 'y'"):
        session.run(0, [x, b], out=[np.zeros(1000, np.float32)])
    with pytest.raises(BadInput, match="threads must be at least 1"):
        Session(axpy_library(), axpy_weights(1.0), threads=0)


def test_weights_are_checked_and_aligned(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="needs 64 bytes of weights, got none"):
        Session(axpy_library())
    with pytest.raises(BadInput, match=r"expected uint8 of shape \(64,\)"):
        Session(axpy_library(), axpy_weights(1.0)[:63])
    x, b = random_inputs()
    (want,) = Session(axpy_library(), axpy_weights(1.5)).run(0, [x, b])
    shifted = aligned(65)[1:]
    shifted[:] = axpy_weights(1.5)
    file = tmp_path / "weights"
    axpy_weights(1.5).tofile(file)
    for weights in (shifted, np.memmap(file, np.uint8, mode="r")):
        np.testing.assert_array_equal(Session(axpy_library(), weights).run(0, [x, b])[0], want)


@both_ways
def test_profile_and_tap() -> None:
    x, b = random_inputs()
    session = Session(axpy_library("-DSPARROW_HOOKS"), axpy_weights(1.0), threads=2)
    times = session.profile(0, [x, b], runs=20)
    assert times.shape == (20, 2)
    assert (times >= 0).all() and (times[:, 0] > 0).any() and times.max() < 10**9
    session.reset()
    (y,), taps = session.tap(0, [x, b])
    assert [(t.step, t.output, len(t.data)) for t in taps] == [(0, 0, 4096), (1, 0, 4)]
    assert taps[0].data == y.tobytes()
    assert Session(axpy_library(), axpy_weights(1.0)).run(0, [x, b])[0].tobytes() == y.tobytes()
    with pytest.raises(BadInput, match="-DSPARROW_HOOKS"):
        Session(axpy_library(), axpy_weights(1.0)).profile(0, [x, b])


def test_other_files_and_abi_versions_are_refused(tmp_path: Path) -> None:
    (tmp_path / "text.so").write_text("not a library")
    with pytest.raises(BadBundle, match="not a model library"):
        HostLibrary(tmp_path / "text.so")
    toolchain, target = find_toolchain(), host_machine("scalar")
    text = """
        #include "sparrow.h"
        int model_run(const sparrow_call *call) { return call->entry != 0; }
        int model_reset(void *state, const void *weights) { return state == weights; }
        static const sparrow_model_info info = {.abi_version = 99};
        const sparrow_model_info *model_info(void) { return &info; }
    """
    objects = toolchain.compile_objects([Unit("future.c", text, (NATIVE,))], target)
    with pytest.raises(BadBundle, match="ABI version 99, this Sparrow has 1"):
        HostLibrary(toolchain.link_shared(objects, target))


def test_enums_and_structs_mirror_the_header() -> None:
    header = (NATIVE / "sparrow.h").read_text(encoding="utf-8")
    dtypes = dict(re.findall(r"SPARROW_([A-Z]+\d*) = (\d+)", header.split("sparrow_dtype {")[1]))
    assert dtypes == {t.name.upper(): str(i) for i, t in enumerate(abi.DTYPES, 1)}
    statuses = header.split("sparrow_status {")[1].split("}")[0]
    assert len(re.findall(r"SPARROW_\w+ = \d+", statuses)) == len(abi.STATUSES)
    mirrors = {
        "sparrow_tensor_info": abi.CTensorInfo,
        "sparrow_entry_info": abi.CEntryInfo,
        "sparrow_model_info": abi.CModelInfo,
        "sparrow_call": abi.CCall,
    }
    for name, mirror in mirrors.items():
        body = header.split(f"typedef struct {name} {{")[1].split(f"}} {name};")[0]
        body = re.sub(r"/\*.*?\*/", "", body, flags=re.DOTALL)
        fields = re.findall(r"(?:\(\*(\w+)\)\([^;]*|[\s*](\w+));", body)
        assert [a or b for a, b in fields] == [field[0] for field in mirror._fields_]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
@pytest.mark.skipif(sys.platform != "linux", reason="counts what Linux maps")
def test_a_library_is_unloaded_with_its_last_session(tmp_path: Path) -> None:
    x, b = random_inputs()
    file = tmp_path / "other.so"
    shutil.copyfile(axpy_library().path, file)

    def mapped() -> bool:
        return str(file) in Path("/proc/self/maps").read_text()

    library = HostLibrary(file)
    with pytest.raises(BadInput):
        library.open(None)
    session = Session(library, axpy_weights(3.0))
    again = Session(HostLibrary(file), axpy_weights(3.0))
    del library
    gc.collect()
    for s in (session, again):
        assert mapped() and s.run(0, [x, b])[0].shape == x.shape
    del session, s
    gc.collect()
    assert mapped() and again.run(0, [x, b])[0].shape == x.shape
    del again
    gc.collect()
    assert not mapped()


def test_forked_child_runs_without_the_pools_threads() -> None:
    x, b = random_inputs()
    session = Session(axpy_library(), axpy_weights(2.0), threads=2)
    (want,) = session.run(0, [x, b])
    child = os.fork()
    if child == 0:
        session.reset()
        os._exit(0 if np.array_equal(session.run(0, [x, b])[0], want) else 1)
    assert os.waitpid(child, 0)[1] == 0


V4 = "avx2 fma f16c bmi1 bmi2 movbe avx512f avx512bw avx512cd avx512dq avx512vl"


@pytest.mark.parametrize(
    ("flags", "isas"),
    [
        ("fpu sse2", ()),
        ("avx2 fma f16c bmi1 bmi2", ()),
        ("avx2 fma f16c bmi1 bmi2 movbe", ("avx2",)),
        ("avx2 fma f16c bmi1 bmi2 movbe avx_vnni", ("avxvnni", "avx2")),
        ("avx2 fma f16c bmi1 bmi2 movbe avx512f", ("avx2",)),
        (V4, ("avx512", "avx2")),
        (f"{V4} avx512_vnni", ("avx512vnni", "avx512", "avx2")),
        (f"{V4} avx512_vnni avx_vnni", ("avx512vnni", "avx512", "avxvnni", "avx2")),
    ],
)
def test_isas_of_cpu_flags(flags: str, isas: tuple[str, ...]) -> None:
    found = isas_of_flags(f"processor : 0\nflags\t\t: {flags}\n")
    assert found == (*isas, "scalar")


def test_host_isa_is_one_this_machine_compiles_for() -> None:
    assert host_machine(host_isa()).isa == host_isa()
    if sys.platform == "linux":
        assert isas_of_flags("no such line") == ("scalar",)


def test_a_target_beyond_this_machine_and_the_emulator_is_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("sparrow.device.runners.host_isas", lambda: ("scalar",))
    with pytest.raises(BadInput, match="the target needs avxvnni; qemu does not emulate avxvnni"):
        find_runner(replace(host_machine("scalar"), isa="avxvnni"), "auto")

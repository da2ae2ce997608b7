"""Packages for other build systems: each compiles, and its self-test passes where it can run."""

from __future__ import annotations

import ctypes
import json
import os
import re
import shutil
import subprocess
import zipfile
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest

import native_harness as harness
import sparrow
from axpy import MODEL, axpy_library, axpy_weights, random_inputs
from data import missing
from emitted import STRICT
from small_models import classifier
from sparrow.cli import main
from sparrow.device.build import NATIVE, Unit, find_toolchain
from sparrow.device.elf import ALLOCATED, NO_BITS, Elf
from sparrow.device.firmware import board_command, link_program
from sparrow.device.here import host_machine
from sparrow.device.host import aligned
from sparrow.device.library import compile_objects
from sparrow.errors import BadInput
from sparrow.packaging import FIRMWARE, firmware_tree, package
from sparrow.packaging.android import ABIS
from sparrow.packaging.naming import Name
from sparrow.targets import target

CORE = "cortex_m3"  # its C is portable: this machine's compiler takes it too
MAIN = '#include "runtime/semihosting.h"\nint model_selftest(void);\n'
MAIN += "int sparrow_main(void) { return model_selftest(); }\n"


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An int8 bundle for a microcontroller."""
    if shutil.which("qemu-system-arm") is None:
        missing("qemu-system-arm is not installed")
    out = tmp_path_factory.mktemp("bundle") / "out"
    samples = np.random.default_rng(1).standard_normal((8, 3, 12, 12)).astype(np.float32)
    sparrow.build(classifier(), CORE, out, calib=samples, precision="int8")
    return out


def firmware(tree: dict[str, str]) -> Path:
    """The self-test of a package, linked for the emulated board."""
    machine, tools = target(CORE).machine, find_toolchain()
    headers = {Path(n).name: t for n, t in tree.items() if n.endswith(".h")}
    folder = Path(tools.cache.folder) / "test-packaging"
    folder.mkdir(exist_ok=True)
    for name, text in headers.items():
        (folder / name).write_text(text)
    units = [Unit(Path(n).name, t, (folder,)) for n, t in tree.items() if n.endswith(".c")]
    objects = tools.compile_objects(units, machine, ("-std=c99", *STRICT))
    start = tools.compile_objects(
        [Unit("main.c", MAIN, (NATIVE,))], machine, ("-std=gnu99", "-fno-builtin", "-Wno-unused")
    )
    return link_program((*start, *objects), machine)


def run(program: Path) -> int:
    command = [*board_command(target(CORE).machine), str(program)]
    return subprocess.run(command, check=False, stdin=subprocess.DEVNULL).returncode


@pytest.mark.parametrize("kind", FIRMWARE)
def test_the_self_test_passes_on_the_board(kind: str, bundle: Path) -> None:
    assert run(firmware(firmware_tree(bundle, kind))) == 0


def test_the_self_test_notices_a_wrong_weight(bundle: Path) -> None:
    tree = firmware_tree(bundle, "cmake")
    head, _, rest = tree["weights.c"].partition("] = {\n")
    wrong = [str(255 - int(b)) for b in rest.partition("}")[0].replace("\n", "").split(",")]
    tree["weights.c"] = f"{head}] = {{\n{','.join(wrong)}}};\n"
    assert run(firmware(tree)) == 1


def test_ram_of_the_image_is_what_fits_says(bundle: Path) -> None:
    memory = sparrow.load_bundle(bundle).receipt.memory
    program = Elf(firmware(firmware_tree(bundle, "cmake")).read_bytes())
    size = {s.name: s.size for s in program.symbols}
    assert size["workspace"] == memory.arena_bytes and size["state"] == max(memory.state_bytes, 1)
    flash = [s for s in program.sections if s.flags & ALLOCATED and s.kind != NO_BITS]
    assert size["model_weights"] == memory.weights_bytes
    assert sum(s.size for s in flash) > memory.code_bytes + memory.weights_bytes


def test_cmake_and_this_machines_compiler_build_it(bundle: Path, tmp_path: Path) -> None:
    if not shutil.which("cmake") or not shutil.which("gcc"):
        pytest.skip("cmake or gcc is not installed")
    package(bundle, "cmake", tmp_path / "lib")
    flags = "-DSPARROW_CPU_FLAGS=-Wall -Wextra -Wconversion -Werror"
    build = ["cmake", "-S", str(tmp_path / "lib"), "-B", str(tmp_path / "b"), flags]
    subprocess.run(build, check=True, capture_output=True)
    subprocess.run(["cmake", "--build", str(tmp_path / "b")], check=True, capture_output=True)
    (tmp_path / "main.c").write_text(
        "int model_selftest(void);\nint main(void) { return model_selftest(); }\n"
    )
    program = tmp_path / "selftest"
    link = ["gcc", str(tmp_path / "main.c"), str(tmp_path / "b" / "libsparrow_model.a")]
    subprocess.run([*link, "-o", str(program)], check=True)
    assert subprocess.run([str(program)], check=False).returncode == 0


def test_one_board_has_two_models(bundle: Path, tmp_path: Path) -> None:
    """Under names of their own, each with its self-test and its server."""
    sparrow.build(classifier(seed=1), CORE, tmp_path / "out")
    trees = [
        firmware_tree(folder, "arduino", Name(name))
        for folder, name in ((bundle, "person"), (tmp_path / "out", "wake_word"))
    ]
    assert {*trees[0]} & {*trees[1]} == {
        "src/sparrow.h",
        "library.properties",
        "examples/selftest/selftest.ino",
    }
    meet = (
        '#include "sparrow_person.h"\n#include "sparrow_wake_word.h"\n'
        '#include "person_serve_uart.h"\n#include "wake_word_serve_uart.h"\n'
        "int model_selftest(void);\nint model_selftest(void) {\n"
        "  void *used[2] = {(void *)(uintptr_t)&person_serve_uart,\n"
        "                   (void *)(uintptr_t)&wake_word_serve_uart};\n"
        "  char room[PERSON_SERVE_BYTES > PERSON_WORKSPACE_BYTES ? 1 : -1];\n"
        "  (void)room;\n"
        "  if (used[0] == used[1] || person_info() == wake_word_info()) return 9;\n"
        "  return person_selftest() * 2 + wake_word_selftest();\n}\n"
    )
    assert run(firmware({**trees[0], **trees[1], "meet.c": meet})) == 0


def test_one_program_has_two_libraries(tmp_path: Path) -> None:
    """Static and shared; with one name for both, one would run the other's code."""
    if not shutil.which("cmake") or not shutil.which("gcc"):
        pytest.skip("cmake or gcc is not installed")
    x = np.random.default_rng(3).standard_normal((1, 3, 12, 12)).astype(np.float32)
    (tmp_path / "x").write_bytes(x.tobytes())
    want = []
    for seed, name in enumerate(("first", "the_second")):
        built = sparrow.build(classifier(seed=seed), "host", tmp_path / f"b{seed}")
        want.append(built.run(x)["y"])
        package(tmp_path / f"b{seed}", "library", tmp_path / name, name)
        weights = str(tmp_path / name / "weights.bin")
        timed = [str(tmp_path / name / "bin" / "benchmark"), weights, "2"]
        said = subprocess.run(timed, capture_output=True, check=True).stdout
        assert json.loads(said)["runs"] == 2
    assert not np.array_equal(want[0], want[1])
    (tmp_path / "main.c").write_text(TWO.replace("COUNT", str(want[0].size)))
    (tmp_path / "CMakeLists.txt").write_text(
        "cmake_minimum_required(VERSION 3.13)\nproject(two C)\n"
        "find_package(sparrow_first CONFIG REQUIRED)\n"
        "find_package(sparrow_the_second CONFIG REQUIRED)\n"
        "foreach(kind static shared)\nadd_executable(${kind}_two main.c)\n"
        "target_link_libraries(${kind}_two sparrow_first::${kind} sparrow_the_second::${kind})\n"
        "endforeach()\n"
    )
    made = [f"-Dsparrow_{n}_DIR={tmp_path / n}" for n in ("first", "the_second")]
    command = ["cmake", "-S", str(tmp_path), "-B", str(tmp_path / "made"), *made]
    subprocess.run(command, check=True, capture_output=True)
    subprocess.run(["cmake", "--build", str(tmp_path / "made")], check=True, capture_output=True)
    for kind in ("static", "shared"):
        files = [tmp_path / n for n in ("first/weights.bin", "the_second/weights.bin", "x")]
        done = subprocess.run(
            [str(tmp_path / "made" / f"{kind}_two"), *map(str, files)],
            capture_output=True,
            check=True,
        )
        np.testing.assert_array_equal(np.frombuffer(done.stdout, np.float32), np.ravel(want))


# Two models of one input and one output; prints the answers of both.
TWO = """\
#include <stdio.h>
#include "first.h"
#include "the_second.h"

static _Alignas(64) char weights[1 << 20], workspace[1 << 20];
static float x[1 << 16], y[COUNT];

static void load(const char *path, void *to, size_t most) {
  FILE *f = fopen(path, "rb");
  if (f == NULL || fread(to, 1, most, f) == 0) y[0] = 1.0f / 0.0f;
  if (f != NULL) fclose(f);
}

int main(int n, char **given) {
  const void *in[] = {x};
  void *out[] = {y};
  sparrow_call call = {.inputs = in, .outputs = out, .weights = weights, .workspace = workspace};
  int (*const run[])(const sparrow_call *) = {first_run, the_second_run};
  if (n != 4 || FIRST_WEIGHTS_BYTES > sizeof weights) return 1;
  load(given[3], x, sizeof x);
  for (int i = 0; i < 2; ++i) {
    load(given[1 + i], weights, sizeof weights);
    if (run[i](&call) != SPARROW_OK) return 2;
    fwrite(y, 1, sizeof y, stdout);
  }
  return first_info() == the_second_info();
}
"""


def test_a_name_is_that_of_symbols_alone() -> None:
    source = (
        '#include "model.h"\n{"model_run", \'"\', model_run, MODEL_H, sparrow_model_info}\n'
        "SPARROW_DECLARE(model); sparrow_serve_uart(); a_model_b; model;\n"
    )
    assert Name("wake_word").sources({"model.c": source, "weights.c": "", "sparrow.h": ""}) == {
        "wake_word.c": '#include "wake_word.h"\n{"model_run", \'"\', wake_word_run, WAKE_WORD_H, '
        "sparrow_model_info}\nSPARROW_DECLARE(wake_word); wake_word_serve_uart(); a_model_b; "
        "model;\n",
        "wake_word_weights.c": "",
        "sparrow.h": "",
    }
    assert Name().sources({"model.c": source}) == {"model.c": source}
    for bad in ("", "A", "a-b", "1a", "a__b", "_a", "a_", "sparrow", "sp_x", "a" * 41, "ä", "a\n"):
        with pytest.raises(BadInput, match="package name"):
            Name(bad)


def test_descriptions_name_files_that_are_there(bundle: Path, tmp_path: Path) -> None:
    trees = {kind: firmware_tree(bundle, kind) for kind in FIRMWARE}
    sources = {"model.c", "model.h", "sparrow.h", "weights.c", "selftest.c"}
    sources |= {"serve_uart.c", "serve_uart.h"}
    for tree in trees.values():
        assert {Path(n).name for n in tree} > sources
    pack = ElementTree.fromstring(trees["stm32cube"]["Sparrow.Model.pdsc"])
    assert {f.get("name") for f in pack.iter("file")} == set(trees["stm32cube"]) - {
        "Sparrow.Model.pdsc"
    }
    library = json.loads(trees["platformio"]["library.json"])
    assert library["headers"] == "model.h" and "-fno-strict-aliasing" in library["build"]["flags"]
    properties = dict(
        row.split("=", 1) for row in trees["arduino"]["library.properties"].splitlines()
    )
    assert {"name", "version", "author", "sentence", "architectures"} <= properties.keys()
    assert f"src/{properties['includes']}" in trees["arduino"]
    for kind in ("zephyr", "esp-idf"):
        assert all(n in trees[kind]["CMakeLists.txt"] for n in sources if n.endswith(".c"))


def test_boards_get_libraries_and_a_benchmark_without_libc(tmp_path: Path) -> None:
    sparrow.build(classifier(), "aarch64", tmp_path / "out")
    package(tmp_path / "out", "library", tmp_path / "lib")
    here = {str(p.relative_to(tmp_path / "lib")) for p in (tmp_path / "lib").rglob("*.*")}
    assert here >= {"lib/libsparrow_model.a", "lib/libsparrow_model.so", "include/model.h"}
    emulator = harness.emulator(target("aarch64").machine)
    program = [*emulator, str(tmp_path / "lib" / "bin" / "benchmark")]
    weights = str(tmp_path / "lib" / "weights.bin")
    done = subprocess.run([*program, weights, "20"], capture_output=True, check=True)
    times = json.loads(done.stdout)
    assert times["runs"] == 20 and 0 < times["min_ns"] <= times["median_ns"] <= times["p95_ns"]
    failed = subprocess.run([*program, weights, "zero"], capture_output=True, check=False)
    assert failed.returncode == 2 and b"runs: expected" in failed.stderr
    config = (tmp_path / "lib" / "sparrow_modelConfig.cmake").read_text()
    assert "libsparrow_model.so" in config and "{" not in config.replace("${", "")


def test_android_gets_a_library_per_abi_that_java_can_call(bundle: Path, tmp_path: Path) -> None:
    package(bundle, "android", tmp_path / "aar")
    manifest = ElementTree.parse(tmp_path / "aar" / "AndroidManifest.xml").getroot()
    assert manifest.get("package") == "org.sparrow.model"
    java = (tmp_path / "aar" / "java/org/sparrow/model/SparrowModel.java").read_text()
    natives = set(re.findall(r"native \w+ (\w+)\(", java))
    for abi in ABIS:
        so = (tmp_path / "aar" / "jni" / abi / "libsparrow_model.so").read_bytes()
        assert all(f"Java_org_sparrow_model_SparrowModel_{n}\0".encode() in so for n in natives)
        assert (tmp_path / "aar" / "assets" / abi / "weights.bin").stat().st_size > 0
    with zipfile.ZipFile(tmp_path / "aar" / "classes.jar") as jar:
        assert jar.namelist() == ["org/sparrow/model/SparrowModel.class"]


def test_two_models_share_an_android_program(bundle: Path, tmp_path: Path) -> None:
    """Nothing of one package stands in the way of another's."""
    package(bundle, "android", tmp_path / "aar", "wake_word")
    manifest = ElementTree.parse(tmp_path / "aar" / "AndroidManifest.xml").getroot()
    assert manifest.get("package") == "org.sparrow.model.WakeWord"
    java = (tmp_path / "aar" / "java/org/sparrow/model/SparrowWakeWord.java").read_text()
    assert 'loadLibrary("sparrow_wake_word")' in java and "assets/ABI/wake_word_weights.bin" in java
    for abi in ABIS:
        so = (tmp_path / "aar" / "jni" / abi / "libsparrow_wake_word.so").read_bytes()
        assert b"Java_org_sparrow_model_SparrowWakeWord_run\0" in so and b"SparrowModel" not in so
        assert b"\0wake_word_run\0" in so and b"\0model_run\0" not in so
        assert (tmp_path / "aar" / "assets" / abi / "wake_word_weights.bin").stat().st_size > 0
        assert "wake_word_run" not in (tmp_path / "aar/headers" / abi / "sparrow.h").read_text()
    with zipfile.ZipFile(tmp_path / "aar" / "classes.jar") as jar:
        assert jar.namelist() == ["org/sparrow/model/SparrowWakeWord.class"]


# A model of one input and one output; prints its answers to its arguments.
CALLER = """\
import java.nio.*;
import java.nio.file.*;
import org.sparrow.model.SparrowModel;

class Caller {
  static ByteBuffer aligned(long bytes) {
    ByteBuffer raw = ByteBuffer.allocateDirect((int) bytes + 63);
    raw.position(SparrowModel.misaligned(raw));
    return raw.slice().order(ByteOrder.nativeOrder());
  }

  public static void main(String[] given) throws Exception {
    byte[] file = Files.readAllBytes(Path.of(given[0]));
    ByteBuffer weights = aligned(SparrowModel.weightsBytes());
    weights.duplicate().put(file);
    ByteBuffer state = aligned(SparrowModel.stateBytes());
    ByteBuffer workspace = aligned(SparrowModel.workspaceBytes());
    ByteBuffer[] x = {aligned(Files.size(Path.of(given[1])))};
    x[0].duplicate().put(Files.readAllBytes(Path.of(given[1])));
    ByteBuffer[] y = {aligned(Integer.parseInt(given[2]))};
    if (SparrowModel.reset(state, weights) != 0) System.exit(1);
    if (SparrowModel.run(0, weights, workspace, state, x, new ByteBuffer[0]) != -1) System.exit(2);
    if (SparrowModel.run(9, weights, workspace, state, x, y) != 1) System.exit(3);
    if (SparrowModel.run(0, weights, workspace, state, x, y) != 0) System.exit(4);
    byte[] found = new byte[Integer.parseInt(given[2])];
    y[0].get(found);
    System.out.write(found, 0, found.length);
    System.out.flush();
  }
}
"""


def test_a_java_virtual_machine_runs_a_model(tmp_path: Path) -> None:
    """Through the class that Python wrote, which says what Java's own compiler says."""
    if not all(map(shutil.which, ("java", "javac", "javap"))):
        missing("the Java development kit is not installed")
    model = sparrow.build(classifier(), "x86_64", tmp_path / "out")
    package(tmp_path / "out", "android", tmp_path / "aar")
    jar, source = tmp_path / "aar" / "classes.jar", tmp_path / "aar" / "java"

    def members(path: Path) -> set[tuple[str, str]]:
        command = ["javap", "-p", "-s", "-cp", str(path), "org.sparrow.model.SparrowModel"]
        said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        return set(re.findall(r"  (.+);\n\s+descriptor: (\S+)", said))

    theirs = tmp_path / "theirs"
    (path,) = source.rglob("*.java")
    subprocess.run(["javac", "-Werror", "-d", str(theirs), str(path)], check=True)
    assert members(jar) == members(theirs) and len(members(jar)) == 8

    (tmp_path / "Caller.java").write_text(CALLER)
    paths = f"{jar}{os.pathsep}{tmp_path}"
    caller = ["javac", "-cp", paths, "-d", str(tmp_path), str(tmp_path / "Caller.java")]
    subprocess.run(caller, check=True)
    machine, tools = target("x86_64").machine, find_toolchain()
    door = tools.compile_objects([Unit.from_file(NATIVE / "runtime" / "jni.c")], machine)
    files = {n: (tmp_path / "out" / n).read_bytes() for n in ("model.c", "sparrow.h")}
    objects = compile_objects(files, machine, model.plan.parts)
    (tmp_path / "libsparrow_model.so").write_bytes(
        tools.link_shared((*objects, *door), machine).read_bytes()
    )
    x = np.random.default_rng(2).standard_normal((1, 3, 12, 12)).astype(np.float32)
    (want,) = model.run(x).values()
    (tmp_path / "x").write_bytes(x.tobytes())
    # -Xverify:all as Android does: every class is verified
    run = ["java", "-Xverify:all", f"-Djava.library.path={tmp_path}", "-cp", paths, "Caller"]
    run += [str(tmp_path / "out" / "weights.bin"), str(tmp_path / "x"), str(want.nbytes)]
    done = subprocess.run(run, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr
    np.testing.assert_array_equal(np.frombuffer(done.stdout, np.float32), want.ravel())


def test_java_runs_a_model_through_its_function_table() -> None:
    """A function table with the few entries that are used stands for the virtual machine."""
    machine, tools = host_machine("scalar"), find_toolchain()
    units = [
        Unit(MODEL.name, MODEL.read_text(encoding="utf-8"), (NATIVE,)),
        Unit.from_file(NATIVE / "runtime" / "jni.c"),
    ]
    library = ctypes.CDLL(str(tools.link_shared(tools.compile_objects(units, machine), machine)))
    info = axpy_library().info
    x, b = random_inputs()
    y = np.zeros(info.entries[0].outputs[0].shape, np.float32)
    workspace, state = aligned(info.workspace_bytes or 1), aligned(info.state_bytes or 1)
    objects = [axpy_weights(3.0), workspace, state, x, b, y, aligned(128)[8:]]
    arrays = {100: [4, 5], 101: [6]}
    pointer, integer = ctypes.c_void_p, ctypes.c_int32
    calls = {
        171: ctypes.CFUNCTYPE(integer, pointer, pointer)(lambda _, a: len(arrays[a])),
        173: ctypes.CFUNCTYPE(pointer, pointer, pointer, integer)(lambda _, a, i: arrays[a][i]),
        230: ctypes.CFUNCTYPE(pointer, pointer, pointer)(lambda _, o: objects[o - 1].ctypes.data),
        231: ctypes.CFUNCTYPE(ctypes.c_int64, pointer, pointer)(lambda _, o: objects[o - 1].nbytes),
    }
    table = (pointer * 232)()
    for index, function in calls.items():
        table[index] = ctypes.cast(function, pointer)
    env = ctypes.pointer(ctypes.cast(table, pointer))
    prefix = "Java_org_sparrow_model_SparrowModel_"
    assert library[f"{prefix}misaligned"](env, None, pointer(7)) == 56
    assert library[f"{prefix}workspaceBytes"](env, None) == info.workspace_bytes
    assert library[f"{prefix}reset"](env, None, pointer(3), pointer(1)) == 0
    run = library[f"{prefix}run"]
    given = (pointer(1), pointer(2), pointer(3))
    assert run(env, None, 0, *given, pointer(100), pointer(101)) == 0
    (want,) = axpy_library().open(axpy_weights(3.0)).run(0, [x, b])
    np.testing.assert_array_equal(y, want)
    assert run(env, None, 0, *given, pointer(101), pointer(101)) == -1
    assert run(env, None, 9, *given, pointer(100), pointer(101)) == 1


def test_wrong_use_is_one_line(bundle: Path, tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="package kind 'deb'"):
        firmware_tree(bundle, "deb")
    sparrow.build(classifier(), "x86_64", tmp_path / "host")
    with pytest.raises(BadInput, match="no microcontroller"):
        firmware_tree(tmp_path / "host", "arduino")
    with pytest.raises(BadInput, match="loads no libraries"):
        package(bundle, "library", tmp_path / "lib")
    with pytest.raises(SystemExit) as e:
        main(["package", str(bundle), "--as", "arduino", "-o", str(tmp_path / "sketch")])
    assert e.value.code == 0 and (tmp_path / "sketch" / "examples" / "selftest").is_dir()

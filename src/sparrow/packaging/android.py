"""A bundle in the shape of an Android archive (AAR): a library and weights per ABI, and Java.

The graph of the bundle is planned anew for each ABI: their instructions, and with them the order of
the weights, differ.
"""

from __future__ import annotations

import io
import zipfile
from dataclasses import replace
from pathlib import Path

from sparrow.device.build import NATIVE, Unit, find_toolchain
from sparrow.device.library import compile_objects
from sparrow.emit.c import emit
from sparrow.evidence.plan_record import PlanRecord
from sparrow.folder import load_graphs
from sparrow.graph import Module
from sparrow.packaging.java import native_class
from sparrow.packaging.naming import MODEL, Name
from sparrow.planner import plan
from sparrow.targets import target

ABIS = {"arm64-v8a": "aarch64_android", "armeabi-v7a": "armv7_android"}

_MANIFEST = """\
<?xml version="1.0" encoding="utf-8"?>
<manifest xmlns:android="http://schemas.android.com/apk/res/android" package="{space}">
  <uses-sdk android:minSdkVersion="21"/>
</manifest>
"""

# Java's class, as the names of native methods in runtime/jni.c have it.
_DOOR = "SparrowModel_"
_JAVA = """\
package org.sparrow.model;

import java.nio.ByteBuffer;

/**
 * A compiled model. All buffers are direct, in native byte order, and aligned to 64 bytes: allocate
 * 63 more than needed, skip the bytes that {{@link #misaligned}} tells, and take a slice. Weights
 * are assets/ABI/{weights}, mapped or copied. run returns 0, a status of sparrow.h, or -1 where
 * a buffer is missing or too small.
 */
public final class {name} {{
  static {{ System.loadLibrary("{library}"); }}

  private {name}() {{}}

  public static native int misaligned(ByteBuffer raw);
  public static native long weightsBytes();
  public static native long workspaceBytes();
  public static native long stateBytes();
  public static native int reset(ByteBuffer state, ByteBuffer weights);
  public static native int run(int entry, ByteBuffer weights, ByteBuffer workspace,
      ByteBuffer state, ByteBuffer[] inputs, ByteBuffer[] outputs);
}}
"""


def android(folder: Path, record: PlanRecord, name: Name) -> dict[str, bytes]:
    """Files of a package.

    Args:
        folder: A bundle for any target.
        record: Its plan.
        name: The package's, which Java's class and library have as well.

    Raises:
        BadBundle: Its files do not belong together.
        CompileError: The compiler is missing.
    """
    graphs, tools = tuple(load_graphs(folder, record)), find_toolchain()
    library, weights = f"sparrow_{name.text}", name.file("weights.bin")
    path = f"org/sparrow/model/Sparrow{name.camel}"
    java = _JAVA.format(name=f"Sparrow{name.camel}", library=library, weights=weights)
    space = "org.sparrow.model" + ("" if name == MODEL else f".{name.camel}")
    tree = {
        "AndroidManifest.xml": _MANIFEST.format(space=space).encode(),
        "classes.jar": _jar(path, native_class(java, library)),
        f"java/{path}.java": java.encode(),
    }
    unit = Unit.from_file(NATIVE / "runtime" / "jni.c")
    door = name.symbols(unit.text).replace(_DOOR, f"Sparrow{name.camel}_")
    for abi, row in ((abi, target(t)) for abi, t in ABIS.items()):
        artifact = emit(plan(Module(graphs[0].name, graphs), row), prefix=name.text)
        objects = compile_objects(artifact.files, row.machine, artifact.parts)
        entry = tools.compile_objects([replace(unit, text=door)], row.machine, ("-std=c99",))
        shared = tools.link_shared((*objects, *entry), row.machine)
        tree |= {
            f"jni/{abi}/lib{library}.so": shared.read_bytes(),
            f"assets/{abi}/{weights}": artifact.files["weights.bin"],
            f"headers/{abi}/{name.file('model.h')}": artifact.files["model.h"],
            f"headers/{abi}/sparrow.h": artifact.files["sparrow.h"],
        }
    return tree


def _jar(path: str, compiled: bytes) -> bytes:
    """An archive of a class; of no date, so that the same bundle gives the same bytes."""
    found = io.BytesIO()
    with zipfile.ZipFile(found, "w") as jar:
        jar.writestr(zipfile.ZipInfo(f"{path}.class"), compiled)
    return found.getvalue()

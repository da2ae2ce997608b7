"""A bundle in the shape of an Android archive (AAR): a library and weights per ABI, and Java.

The graph of the bundle is planned anew for each ABI: their instructions, and with them the order of
the weights, differ.
"""

from __future__ import annotations

import io
import zipfile
from pathlib import Path

from sparrow.device.build import NATIVE, Unit, find_toolchain
from sparrow.device.library import compile_objects
from sparrow.emit.c import emit
from sparrow.evidence.plan_record import PlanRecord
from sparrow.folder import load_graphs
from sparrow.graph import Module
from sparrow.packaging.java import native_class
from sparrow.planner import plan
from sparrow.targets import target

ABIS = {"arm64-v8a": "aarch64_android", "armeabi-v7a": "armv7_android"}

_MANIFEST = """\
<?xml version="1.0" encoding="utf-8"?>
<manifest xmlns:android="http://schemas.android.com/apk/res/android" package="org.sparrow.model">
  <uses-sdk android:minSdkVersion="21"/>
</manifest>
"""

_LIBRARY = "sparrow_model"
_CLASS = "org/sparrow/model/SparrowModel"
_JAVA = f"""\
package org.sparrow.model;

import java.nio.ByteBuffer;

/**
 * A compiled model. All buffers are direct, in native byte order, and aligned to 64 bytes: allocate
 * 63 more than needed, skip the bytes that {{@link #misaligned}} tells, and take a slice. Weights
 * are assets/ABI/weights.bin, mapped or copied. run returns 0, a status of sparrow.h, or -1 where
 * a buffer is missing or too small.
 */
public final class SparrowModel {{
  static {{ System.loadLibrary("{_LIBRARY}"); }}

  private SparrowModel() {{}}

  public static native int misaligned(ByteBuffer raw);
  public static native long weightsBytes();
  public static native long workspaceBytes();
  public static native long stateBytes();
  public static native int reset(ByteBuffer state, ByteBuffer weights);
  public static native int run(int entry, ByteBuffer weights, ByteBuffer workspace,
      ByteBuffer state, ByteBuffer[] inputs, ByteBuffer[] outputs);
}}
"""


def android(folder: Path, record: PlanRecord) -> dict[str, bytes]:
    """Files of a package.

    Args:
        folder: A bundle for any target.
        record: Its plan.

    Raises:
        BadBundle: Its files do not belong together.
        CompileError: The compiler is missing.
    """
    graphs, tools = tuple(load_graphs(folder, record)), find_toolchain()
    tree = {
        "AndroidManifest.xml": _MANIFEST.encode(),
        "classes.jar": _jar(),
        f"java/{_CLASS}.java": _JAVA.encode(),
    }
    unit = Unit.from_file(NATIVE / "runtime" / "jni.c")
    for abi, name in ABIS.items():
        row = target(name)
        artifact = emit(plan(Module(graphs[0].name, graphs), row))
        objects = compile_objects(artifact.files, row.machine, artifact.parts)
        door = tools.compile_objects([unit], row.machine, ("-std=c99",))
        shared = tools.link_shared((*objects, *door), row.machine)
        tree |= {
            f"jni/{abi}/lib{_LIBRARY}.so": shared.read_bytes(),
            f"assets/{abi}/weights.bin": artifact.files["weights.bin"],
            f"headers/{abi}/model.h": artifact.files["model.h"],
            f"headers/{abi}/sparrow.h": artifact.files["sparrow.h"],
        }
    return tree


def _jar() -> bytes:
    """An archive of the class; of no date, so that the same bundle gives the same bytes."""
    found = io.BytesIO()
    with zipfile.ZipFile(found, "w") as jar:
        jar.writestr(zipfile.ZipInfo(f"{_CLASS}.class"), native_class(_JAVA, _LIBRARY))
    return found.getvalue()

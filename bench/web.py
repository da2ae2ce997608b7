"""Our page's folder against onnxruntime-web and tfjs-backend-wasm, in Node or Chromium.

    npm install --prefix DIR onnxruntime-web @tensorflow/tfjs-core @tensorflow/tfjs-backend-wasm \
        @tensorflow/tfjs-backend-cpu
    python bench/web.py --packages DIR [--engine node|chromium] [--threads N] [mobilenet_v2 ...]

All engines run in one process, in blocks of random order; a ratio is the median over the rounds of
their time over ours, with its bootstrap 95 % interval. Random networks are calibrated on random
inputs: only their speed means anything. tfjs runs networks of convolutions that `layers` can spell,
and has threads in pages alone. Pages are cross-origin isolated, as threads ask. Rows go to the end
of `bench/results/web.csv`.
"""

import argparse
import json
import subprocess
import tempfile
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
from onnx import helper, numpy_helper

import sparrow
from cases import data_folder
from models import MODELS
from run import append, commit
from sparrow.compiler import Source, compile_sources
from sparrow.device.chromium import HEADERS, start_chromium
from sparrow.device.node import find_node
from sparrow.rendering.page import write_page
from sparrow.targets import target
from sparrow.timing.measure import comparison, cpu, interval

HERE = Path(__file__).parent
NETS = ("mobilenet_v2", "rfb_320", "ds_cnn", "resnet18")
# By whether there are several threads.
PATHS = {
    False: ("usdot", "maddubs", "relaxed", "simd"),
    True: ("usdot_threads", "maddubs_threads", "threads"),
}
# Largest difference from onnxruntime, as a share of an output's largest magnitude; codes differ.
TOLERANCE = 1e-3

TF = "/npm/@tensorflow/"
PAGE = (
    f"""<!doctype html><title>race</title>
<script src="{TF}tfjs-core/dist/tf-core.min.js"></script>
<script src="{TF}tfjs-backend-cpu/dist/tf-backend-cpu.min.js"></script>
<script src="{TF}tfjs-backend-wasm/dist/tf-backend-wasm.min.js"></script>
"""
    + """<script type="module">
import { race } from './web_race.mjs';
const read = async (path) => new Uint8Array(await (await fetch(path)).arrayBuffer());
const config = await (await fetch('/config.json')).json();
try {
  const found = await race(config, read);
  await fetch('/done', { method: 'POST', body: JSON.stringify(found) });
} catch (e) {
  await fetch('/done', { method: 'POST', body: JSON.stringify({ failed: `${e}` }) });
}
</script>"""
)


def network(name: str) -> onnx.ModelProto:
    """A network of `NETS`."""
    if name == "rfb_320":
        return onnx.load(data_folder() / "face/models/version-RFB-320_simplified.onnx")
    return next(m for m in MODELS if m.name == name).build()


def shape_of(model: onnx.ModelProto) -> tuple[int, ...]:
    """Extents of the input."""
    return tuple(d.dim_value for d in model.graph.input[0].type.tensor_type.shape.dim)


def coded(model: onnx.ModelProto) -> onnx.ModelProto:
    """The network in QDQ form."""
    rng = np.random.default_rng(0)
    return sparrow.quantize(
        model, [rng.standard_normal(shape_of(model), np.float32) for _ in range(8)]
    )


def write_folder(model: onnx.ModelProto, folder: Path, threads: int) -> None:
    """A page's folder with the builds of `PATHS`."""
    folder.mkdir()
    row = replace(target("web"), builds=tuple(f"wasm32_{p}" for p in PATHS[threads > 1]))
    compiled = compile_sources({"main": Source(model)}, row)
    write_page(folder, compiled)


def layers(model: onnx.ModelProto, blob: bytearray) -> list[dict[str, Any]] | None:
    """A network's operators for tfjs, channels last, or None where one has no spelling here."""
    with tempfile.TemporaryDirectory() as folder:
        options = ort.SessionOptions()
        options.log_severity_level = 4
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_BASIC
        options.optimized_model_filepath = str(Path(folder) / "model.onnx")
        ort.InferenceSession(model.SerializeToString(), options)
        graph = onnx.load(options.optimized_model_filepath).graph
    held = {t.name: numpy_helper.to_array(t) for t in graph.initializer}
    last = {o.name for o in graph.output}
    shape = shape_of(model)

    def constant(a: np.ndarray[Any, Any]) -> dict[str, Any]:
        blob.extend(b"\0" * (-len(blob) % 4))
        at = len(blob)
        blob.extend(np.ascontiguousarray(a, np.float32).tobytes())
        return {"at": at, "shape": list(a.shape)}

    def add(op: str, n: onnx.NodeProto, constants: Sequence[Any] = (), **more: Any) -> None:
        inputs = [i for i in n.input if i and i not in held]
        more["result"] = n.output[0] in last
        row = {"op": op, "inputs": inputs, "output": n.output[0]}
        rows.append({**row, "constants": constants, "attributes": more})

    name = graph.input[0].name
    first = {"shape": shape, "order": [0, 2, 3, 1]}
    rows: list[dict[str, Any]] = [
        {"op": "input", "inputs": [], "output": name, "constants": [], "attributes": first}
    ]
    for n in graph.node:
        a = {x.name: helper.get_attribute_value(x) for x in n.attribute}
        if n.op_type == "Conv":
            w = held[n.input[1]]
            group, pads = a.get("group", 1), a.get("pads", [0] * 4)
            depthwise = group > 1
            if depthwise and w.shape[1] != 1:
                return None
            # HWIO, of depthwise ones HWI1
            taps = w.transpose(2, 3, 0, 1) if depthwise else w.transpose(2, 3, 1, 0)
            constants = [constant(taps)]
            bias = held[n.input[2]] if len(n.input) > 2 else np.zeros(w.shape[0], np.float32)
            constants.append(constant(bias))
            add(
                *("conv", n, constants),
                depthwise=depthwise,
                mode="explicit" if any(pads) else "valid",
                pad=[[0, 0], [pads[0], pads[2]], [pads[1], pads[3]], [0, 0]],
                strides=list(a.get("strides", [1, 1])),
                dilations=list(a.get("dilations", [1, 1])),
            )
        elif n.op_type in ("Relu", "Clip"):
            limits = [float(held[i]) for i in n.input[1:]]
            kind = "relu" if n.op_type == "Relu" else "relu6" if limits == [0, 6] else ""
            producer = next((r for r in rows if r["output"] == n.input[0]), None)
            if not kind or producer is None:
                return None
            if producer["op"] == "conv":
                producer["attributes"]["activation"] = kind
                producer["output"] = n.output[0]
            elif kind == "relu":
                add("relu", n)
            else:
                return None
        elif n.op_type == "Add":
            add("add", n)
        elif n.op_type == "MaxPool":
            pads = a.get("pads", [0] * 4)
            pad = [[0, 0], [pads[0], pads[2]], [pads[1], pads[3]], [0, 0]] if any(pads) else None
            kernel, strides = list(a["kernel_shape"]), list(a.get("strides", [1, 1]))
            # behind a Relu zeros pad like the smallest number
            add("maxpool", n, pad=pad, kernel=kernel, strides=strides)
        elif n.op_type == "GlobalAveragePool":
            add("mean", n)
        elif n.op_type in ("Flatten", "Identity"):
            add("reshape", n, shape=[1, -1])
        elif n.op_type == "Gemm":
            w = held[n.input[1]]
            matrix = w.T if a.get("transB") else w
            add("matmul", n, [constant(matrix), constant(held[n.input[2]].ravel())])
        elif n.op_type == "Softmax":
            add("softmax", n)
        else:
            return None
    return rows


def prepare(name: str, folder: Path, engine: str, threads: int) -> dict[str, Any]:
    """Write every engine's files; returns the configuration with paths relative to ``/``."""
    model = network(name)
    codes = coded(model)
    onnx.save(model, folder / "float32.onnx")
    onnx.save(codes, folder / "int8.onnx")
    write_folder(model, folder / "float32", threads)
    write_folder(codes, folder / "int8", threads)
    x = np.random.default_rng(1).standard_normal(shape_of(model), np.float32)
    (folder / "input.bin").write_bytes(x.tobytes())
    engines: dict[str, dict[str, Any]] = {
        f"sparrow {precision} {path}": {
            "kind": "sparrow",
            "base": f"/files/{precision}/",
            "path": path,
        }
        for precision in ("float32", "int8")
        for path in PATHS[threads > 1]
        if (folder / precision / f"model.{path}.wasm").exists()
    }
    web = "/npm/onnxruntime-web/dist/"
    for precision in ("float32", "int8"):
        engines[f"onnxruntime-web {precision}"] = {
            "kind": "ort",
            "module": f"{web}ort.wasm.bundle.min.mjs",
            "wasm": web,
            "model": f"/files/{precision}.onnx",
        }
    blob = bytearray()
    rows = layers(model, blob)
    if rows is not None and (threads == 1 or engine == "chromium"):
        (folder / "layers.json").write_text(json.dumps(rows))
        (folder / "layers.bin").write_bytes(blob)
        engines["tfjs float32"] = {
            "kind": "tfjs",
            "module": f"{TF}tfjs-core/dist/tf-core.node.js",
            "backend": f"{TF}tfjs-backend-wasm/dist/tf-backend-wasm.node.js",
            "wasm": f"{TF}tfjs-backend-wasm/dist/",
            "graph": "/files/layers.json",
            "weights": "/files/layers.bin",
        }
    return {
        "engines": engines,
        "data": "/files/input.bin",
        "input": model.graph.input[0].name,
        "shape": shape_of(model),
        "seed": 1,
        "threads": threads,
    }


def local(value: Any, folder: Path, packages: Path) -> Any:
    """A configuration with its paths on this machine, URLs where code is imported from."""
    if isinstance(value, dict):
        found = {k: local(v, folder, packages) for k, v in value.items()}
        for key in ("base", "module", "backend"):
            if key in found:
                found[key] = Path(found[key]).as_uri() + ("/" if key == "base" else "")
        return found
    if isinstance(value, str) and value.startswith("/files/"):
        return str(folder / value.removeprefix("/files/"))
    if isinstance(value, str) and value.startswith("/npm/"):
        node = {"ort.wasm.bundle.min.mjs": "ort.node.min.mjs"}
        path = packages / "node_modules" / value.removeprefix("/npm/")
        return str(path.with_name(node.get(path.name, path.name))) + "/" * value.endswith("/")
    return value


def in_node(config: dict[str, Any], folder: Path, packages: Path) -> Any:
    """The race in Node.js."""
    answer = folder / "answer.json"
    path = folder / "config.json"
    path.write_text(json.dumps({**local(config, folder, packages), "answer": str(answer)}))
    subprocess.run([find_node(), str(HERE / "web_race.mjs"), str(path)], check=True)
    return json.loads(answer.read_text())


def in_chromium(config: dict[str, Any], folder: Path, packages: Path) -> Any:
    """The race in a page."""
    found: list[Any] = []
    done = threading.Event()

    class Handler(SimpleHTTPRequestHandler):
        def translate_path(self, path: str) -> str:
            path = path.split("?")[0]
            if path == "/web_race.mjs":
                return str(HERE / "web_race.mjs")
            if path.startswith("/npm/"):
                return str(packages / "node_modules" / path.removeprefix("/npm/"))
            return str(folder / path.removeprefix("/files/").lstrip("/"))

        def do_POST(self) -> None:
            found.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(204)
            self.end_headers()
            done.set()

        def end_headers(self) -> None:
            for name, value in HEADERS.items():
                self.send_header(name, value)
            super().end_headers()

        def log_message(self, format: str, *args: object) -> None:
            pass

    (folder / "index.html").write_text(PAGE)
    (folder / "config.json").write_text(json.dumps(config))
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    process = start_chromium(
        f"http://127.0.0.1:{server.server_port}/index.html", folder / "profile"
    )
    try:
        if not done.wait(600):
            raise SystemExit("the page never answered")
    finally:
        process.kill()
        process.wait()
        server.shutdown()
    if "failed" in found[0]:
        raise SystemExit(found[0]["failed"])
    return found[0]


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the results file.

    `ready_ms` is the time from loading to the first answer; `ratio` is the time of `against`, the
    fastest of the others, over this one's, with its 95 % interval.
    """

    time: str
    commit: str
    cpu: str
    where: str
    threads: int
    model: str
    engine: str
    median_ms: float
    ready_ms: int
    against: str
    ratio: float
    low: float
    high: float


def rows_of(name: str, found: Any, where: str, threads: int) -> Iterator[Row]:
    """A row for each build of ours and each engine; refuses floats that are far from each other."""
    times = {k: np.array(v) for k, v in found["ms"].items()}
    others = {k: ms for k, ms in times.items() if not k.startswith("sparrow")}
    best = min(others, key=lambda k: float(np.median(others[k])))
    reference = [np.array(y) for y in found["outputs"]["onnxruntime-web float32"]]
    stamp = datetime.now(UTC).isoformat(timespec="seconds")
    for engine, ms in times.items():
        apart = max(
            float(np.abs(np.array(y) - r).max() / np.abs(r).max())
            for y, r in zip(found["outputs"][engine], reference, strict=True)
        )
        if apart > TOLERANCE and "int8" not in engine:
            raise SystemExit(f"{name}: {engine} is {apart:.1e} away from onnxruntime-web")
        ratio = others[best] / ms
        figures = (float(np.median(ratio)), *interval(ratio))
        yield Row(
            *(stamp, commit(), cpu(), where, threads, name, engine),
            *(round(float(np.median(ms)), 4), round(found["ready"][engine]), best),
            *(round(x, 3) for x in figures),
        )


def line(row: Row) -> str:
    """A row as text."""
    text = f"{row.model:14} {row.engine:26} {row.median_ms:9.3f} ms, first answer after "
    text += f"{row.ready_ms:6} ms"
    if not row.engine.startswith("sparrow"):
        return text
    return f"{text}, {row.against}: {comparison(row.ratio, row.low, row.high, 1, 0.0)}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("names", nargs="*", default=NETS, metavar="name")
    parser.add_argument("--packages", type=Path, required=True, help="folder of npm install")
    parser.add_argument("--engine", choices=("node", "chromium"), default="node")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=12)
    parser.add_argument("--block-ms", type=float, default=60)
    parser.add_argument("--out", type=Path, default=HERE / "results" / "web.csv")
    options = parser.parse_args()
    run = in_node if options.engine == "node" else in_chromium
    for name in options.names or NETS:
        with tempfile.TemporaryDirectory() as folder:
            config = prepare(name, Path(folder), options.engine, options.threads)
            config |= {"rounds": options.rounds, "blockMs": options.block_ms}
            found = run(config, Path(folder), options.packages.resolve())
            for path in sorted(Path(folder).glob("*/model.*.wasm")):
                print(f"{name:14} {path.parent.name} {path.name} {path.stat().st_size:,} bytes")
            rows = [*rows_of(name, found, options.engine, options.threads)]
            print("\n".join(map(line, rows)), flush=True)
            append(options.out, rows)


if __name__ == "__main__":
    main()

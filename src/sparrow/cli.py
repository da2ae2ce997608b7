"""The command line: parse arguments, call the library, print; heavy imports wait for a command."""

from __future__ import annotations

import gc
import json
import os
import sys
import tempfile
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sparrow.arguments import (
    UNITS,
    budget_of,
    evaluator,
    failure_of,
    models_of,
    numbers,
    quantity,
    quantization_facts,
    recipe_of,
    shapes_of,
    states_of,
)
from sparrow.errors import BadInput, GateFailed, SparrowError, printable

if TYPE_CHECKING:
    from sparrow.receipt import SearchRecord
    from sparrow.tensor import Array

app = typer.Typer(
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    help="A trained network in, one small, fast, proved artifact out.",
)

ModelArgument = Annotated[
    list[str],
    typer.Argument(help="model.onnx, or name=model.onnx for each of several entry points"),
]
FolderArgument = Annotated[Path, typer.Argument(help="bundle folder")]
TargetOption = Annotated[str, typer.Option(help="target row, see `sparrow targets`")]
ShapeOption = Annotated[
    list[str] | None, typer.Option(help="static shape of an input: input=1x3x240x320")
]
StateOption = Annotated[
    list[str] | None, typer.Option(help="input that carries an output to the next call: in=out")
]
DeviceOption = Annotated[
    str, typer.Option(help="where to run: host, qemu, qemu:<cpu>, node, chromium, or auto")
]
JsonOption = Annotated[bool, typer.Option("--json", help="print the same facts as JSON")]
ThreadsOption = Annotated[int, typer.Option(min=1, max=1024, help="threads per call")]
CalibOption = Annotated[Path, typer.Option(help="samples: .npz, .npy or a folder of images")]
EvaluateOption = Annotated[str | None, typer.Option(help="accuracy: file.py:function")]
DropOption = Annotated[str | None, typer.Option(help="largest loss of accuracy: 1%")]
LatencyOption = Annotated[str | None, typer.Option(help="largest median latency: 20ms")]
SizeOption = Annotated[str | None, typer.Option(help="largest code plus weights: 15MB")]
RamOption = Annotated[str | None, typer.Option(help="largest arena plus state: 64kB")]
PinOption = Annotated[
    list[str] | None,
    typer.Option(help="layer, glob or kind of op at a precision: head*=float32"),
]
RecipeOption = Annotated[
    Path | None, typer.Option(help="recipe.json of a bundle or of `sparrow plan`")
]
CodeOption = Annotated[
    str, typer.Option(help="of int8: fast, compact, or auto: compact where --size needs it")
]
EntryOption = Annotated[str | None, typer.Option(help="entry point; the first by default")]


class _Progress:
    """One changing line on stderr; silent when that is no terminal."""

    def __init__(self) -> None:
        self.shown = sys.stderr.isatty()

    def __call__(self, what: str) -> None:
        if self.shown:
            print(f"\r\x1b[K{what} ...", end="", file=sys.stderr, flush=True)

    def clear(self) -> None:
        if self.shown:
            print("\r\x1b[K", end="", file=sys.stderr, flush=True)


_progress = _Progress()


def show(facts: Any) -> None:
    """Print JSON."""
    print(json.dumps(facts, indent=1))


@app.command()
def build(
    model: ModelArgument,
    out: Annotated[Path, typer.Option("--out", "-o", help="bundle folder to write")],
    target: TargetOption = "host",
    shape: ShapeOption = None,
    state: StateOption = None,
    calib: Annotated[
        Path | None, typer.Option(help="samples: .npz, .npy, image or image folder")
    ] = None,
    evaluate: EvaluateOption = None,
    precision: Annotated[
        str, typer.Option(help="float32, bfloat16, int8 (needs --calib) or auto")
    ] = "auto",
    threads: ThreadsOption = 1,
    drop: DropOption = None,
    latency: LatencyOption = None,
    size: SizeOption = None,
    ram: RamOption = None,
    pin: PinOption = None,
    recipe: RecipeOption = None,
    code: CodeOption = "auto",
    explain: Annotated[bool, typer.Option("--explain", help="print every decision")] = False,
    as_json: JsonOption = False,
) -> None:
    """Compile models into a proved bundle."""
    from sparrow.api import build as build_bundle

    bundle = build_bundle(
        models_of(model),
        target,
        out,
        shapes_of(shape),
        calib,
        evaluator(evaluate),
        precision,
        threads,
        budget_of(drop, latency, size, ram),
        states=states_of(state),
        recipe=recipe_of(pin, recipe),
        code=code,
        progress=_progress,
    )
    _progress.clear()
    receipt, measured = bundle.receipt, bundle.measurements
    if precision == "bfloat16" and receipt.precision != precision:
        why = f"no product gains by it on {receipt.target}"
        print(f"{receipt.precision} instead of bfloat16: {why}", file=sys.stderr)
    if as_json:
        show({"receipt": receipt.model_dump(mode="json"), "measurements": measured})
        return
    if explain:
        _explain(bundle)
    memory = receipt.memory
    print(receipt.verdict)
    for a in receipt.accuracy:
        worst = max((d.max / d.scale if d.scale else d.max for d in a.differences), default=None)
        text = a.note if worst is None else f"at most {worst:.1e} of the largest magnitude away"
        print(f"against {a.what}: {printable(text)}")
    print(
        f"flash {memory.code_bytes + memory.weights_bytes:,} bytes (code {memory.code_bytes:,}), "
        f"RAM {memory.arena_bytes + memory.state_bytes:,} bytes (state {memory.state_bytes:,})"
    )
    for row in measured.get("latencies", ()):
        low, high = row["low_ns"] / 1e3, row["high_ns"] / 1e3
        print(
            f"{printable(row['entry'])}: {row['median_ns'] / 1e3:.1f} us [{low:.1f}, {high:.1f}], "
            f"{row['threads']} thread(s)"
        )
    if receipt.search is not None:
        _show_search(receipt.search)
    print(f"report: {out / 'report.html'}")


@app.command()
def plan(
    model: Annotated[Path, typer.Argument(help="model.onnx")],
    calib: CalibOption,
    target: TargetOption = "host",
    shape: ShapeOption = None,
    state: StateOption = None,
    evaluate: EvaluateOption = None,
    threads: ThreadsOption = 1,
    drop: DropOption = None,
    latency: LatencyOption = None,
    size: SizeOption = None,
    ram: RamOption = None,
    pin: PinOption = None,
    recipe: RecipeOption = None,
    code: CodeOption = "auto",
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="recipe.json to write, for build --recipe")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Say which precision every layer would get within a budget, and what that costs."""
    from sparrow.api import plan_precisions
    from sparrow.quant.recipe import to_json

    record, found = plan_precisions(
        str(model),
        target,
        shapes_of(shape),
        calib,
        evaluator(evaluate),
        threads,
        budget_of(drop, latency, size, ram),
        states=states_of(state),
        recipe=recipe_of(pin, recipe),
        code=code,
        progress=_progress,
    )
    _progress.clear()
    if out is not None:
        _write(out, to_json(found))
    if as_json:
        show(record.model_dump(mode="json"))
        return
    print(f"{'layer':44} {'op':8} {'gets':8} {'us':>22} {'kB':>18} {'dB':>8}")
    for x in record.layers:
        cost = " / ".join(f"{v / 1e3:.1f}" for v in x.ns.values())
        held = " / ".join(f"{v / 1e3:.1f}" for v in x.bytes.values())
        mark = " pinned" if x.pinned else ""
        print(
            f"{printable(x.name)[-44:]:44} {x.op:8} {x.precision:8} {cost:>22} {held:>18} "
            f"{x.db.get('int8', 999.0):8.1f}{mark}"
        )
    print(f"us and kB at {' / '.join(record.layers[0].ns)}; dB of the outputs with this int8 alone")
    _show_search(record)


def _show_search(s: SearchRecord) -> None:
    """The mixes that were considered, what binds, and what pins cost."""
    print(f"{'':2}{'ms':>10} {'kB':>10} {'dB':>7} {'drop':>8}  layers")
    for m in sorted(s.mixes, key=lambda m: m.ns):
        drop = "" if m.drop is None else f"{m.drop:.2%}"
        counts = ", ".join(f"{n} {p}" for p, n in m.counts.items())
        error = "exact" if m.db >= 999 else f"{m.db:.1f}"
        print(
            f"{'*' if m.chosen else '':2}{m.ns / 1e6:10.4f} {m.bytes / 1e3:10.1f} {error:>7} "
            f"{drop:>8}  {counts}"
        )
    print(f"binds: {printable(s.binds)}")
    for p in s.pins:
        print(
            f"pin {printable(p.pin)}: {p.layers} layers, {p.ms:+.4f} ms, {p.kb:+.1f} kB, "
            f"{p.db:+.1f} dB"
        )


def _explain(bundle: Any) -> None:
    for r in bundle.receipt.passes:
        mark = "+" if r.applied else "-"
        print(f"{mark} {r.rule:20} {printable(r.node)[:60]}: {printable(r.text)}")
    for e in bundle.plan.entries:
        for s in e.steps:
            print(f"  {printable(e.name)}.{s.index} {s.op} {printable(s.origin)[:60]}: {s.kernel}")
            for other in s.rejected:
                print(f"      not {other.kernel}: {printable(other.reason)}")


@app.command()
def check(
    model: ModelArgument,
    target: TargetOption = "host",
    shape: ShapeOption = None,
    state: StateOption = None,
    as_json: JsonOption = False,
) -> None:
    """Say of every node what would become of it: ok, decomposed, folded or missing."""
    from dataclasses import asdict

    from sparrow.api import check as check_model

    found = check_model(models_of(model), target, shapes_of(shape), states=states_of(state))
    if as_json:
        show({"ok": found.ok, **asdict(found), "counts": found.counts})
    else:
        for f in found.frozen:
            print(f"frozen      {printable(f)}")
        for n in found.nodes:
            text = f"{n.verdict:11} {n.op:20.40} {printable(n.name)[:120]}"
            if n.verdict == "decomposed":
                text += f": {', '.join(n.parts[:8])}{' ...' if len(n.parts) > 8 else ''}"
            print(f"{text}{': ' + printable(n.reason) if n.reason else ''}{_hint(n.hint)}")
        counts = ", ".join(f"{v} {k}" for k, v in found.counts.items()) or "no nodes"
        print(f"{found.target}: {counts}")
    if not found.ok:
        raise typer.Exit(1)


def _hint(text: str) -> str:
    return f"; {printable(text)}" if text else ""


@app.command()
def fits(
    model: ModelArgument,
    target: Annotated[
        list[str] | None, typer.Option(help="target row, see `sparrow targets`; may be repeated")
    ] = None,
    shape: ShapeOption = None,
    state: StateOption = None,
    calib: Annotated[
        Path | None, typer.Option(help="samples for int8: .npz, .npy, image or image folder")
    ] = None,
    precision: Annotated[str, typer.Option(help="float32, int8 or auto")] = "auto",
    flash: Annotated[str | None, typer.Option(help="flash instead of the row's: 512kB")] = None,
    ram: Annotated[str | None, typer.Option(help="RAM instead of the row's: 64kB")] = None,
    as_json: JsonOption = False,
) -> None:
    """Say whether models fit targets: flash, RAM, stack, time; exits with 1 where one does not.

    A folder stands for all .onnx and .tflite files in it.
    """
    from sparrow.api import fits as fit
    from sparrow.fitting import table

    flash_bytes, ram_bytes = quantity(flash, "--flash", UNITS), quantity(ram, "--ram", UNITS)
    if not target:
        raise BadInput("no target given", hint="add --target nano33ble; `sparrow targets` lists")
    folder = Path(model[0])
    several: list[Any] = [models_of(model)]
    if len(model) == 1 and folder.is_dir():
        several = sorted(str(p) for p in folder.iterdir() if p.suffix in (".onnx", ".tflite"))
        if not several:
            raise BadInput(f"{folder}: no .onnx or .tflite file")
    found = []
    for m in several:
        for t in target:
            _progress(f"{m} on {t}")
            found.append(
                fit(
                    *(m, t, shapes_of(shape), calib, precision),
                    states=states_of(state),
                    flash=None if flash_bytes is None else int(flash_bytes),
                    ram=None if ram_bytes is None else int(ram_bytes),
                )
            )
    _progress.clear()
    if as_json:
        show([f.as_json() for f in found])
    else:
        shown = str(found[0]) if len(found) == 1 else table(found)
        print("\n".join(printable(line) for line in shown.splitlines()))
    if not all(f.ok for f in found):
        raise typer.Exit(1)


@app.command()
def run(
    folder: FolderArgument,
    inputs: Annotated[
        list[str] | None,
        typer.Argument(help="file, or name=file: .npy, .npz (arrays by input name) or an image"),
    ] = None,
    out: Annotated[Path | None, typer.Option("--out", "-o", help=".npz to write")] = None,
    entry: EntryOption = None,
    threads: ThreadsOption = 1,
    device: DeviceOption = "auto",
    as_json: JsonOption = False,
) -> None:
    """Run a bundle on files."""
    import numpy as np

    from sparrow.api import load_bundle

    bundle = load_bundle(folder, threads, device)
    feeds = _feeds(bundle, bundle.entry_index(entry), inputs or [])
    outputs = bundle.run(feeds, entry)
    if out is not None:
        _save(out, outputs)
    facts: dict[str, dict[str, Any]] = {}
    for name, y in outputs.items():
        finite = y[np.isfinite(y)] if y.dtype.kind == "f" else y
        facts[name] = {
            "dtype": y.dtype.name,
            "shape": list(y.shape),
            "min": float(finite.min()) if finite.size else None,
            "max": float(finite.max()) if finite.size else None,
            "mean": float(finite.mean()) if finite.size else None,
            "argmax": int(np.argmax(y)) if y.size else None,
        }
    if as_json:
        show(facts)
        return
    for name, f in facts.items():
        shape = "x".join(map(str, f["shape"])) or "scalar"
        row = f"{printable(name)}: {f['dtype']}[{shape}]"
        if f["min"] is not None:
            row += f" min {f['min']:.6g} max {f['max']:.6g} mean {f['mean']:.6g} at {f['argmax']}"
        print(row)


def _feeds(bundle: Any, index: int, texts: list[str]) -> dict[str, Array]:
    """Arrays for the inputs of an entry point, from files."""
    from sparrow.npz import read_arrays
    from sparrow.samples import IMAGES, fit, load_image
    from sparrow.tensor import TensorType

    tensors = bundle.session.library.info.entries[index].inputs
    types = {t.name: TensorType(t.shape, t.dtype) for t in tensors}
    found: dict[str, Array] = {}
    for text in texts:
        name, equals, file = text.partition("=")
        named = bool(equals) and name in types
        path = Path(file if named else text)
        if named or len(types) == 1:
            only = name if named else next(iter(types))
            if path.suffix.lower() in IMAGES:
                found[only] = load_image(path, only, types[only])
                continue
            arrays = read_arrays(path)
            if "" in arrays or (named and len(arrays) == 1):
                found[only] = fit(next(iter(arrays.values())), only, types[only])
                continue
        else:
            arrays = read_arrays(path)
        for key, a in arrays.items():
            if key not in types:
                raise BadInput(
                    f"{path}: array {key!r} is no input", hint=f"inputs: {', '.join(types)}"
                )
            found[key] = fit(a, key, types[key])
    return found


def _save(out: Path, outputs: Mapping[str, Array]) -> None:
    import io
    import zipfile

    import numpy as np

    from sparrow.publish import replace_file

    if out.suffix != ".npz":
        raise BadInput(f"-o {str(out)!r}", hint="outputs are written to a .npz file")
    data = io.BytesIO()
    # numpy.savez takes the names as keywords, and a model may call an output "file"
    with zipfile.ZipFile(data, "w") as z:
        for name, y in outputs.items():
            with z.open(f"{name}.npy", "w", force_zip64=True) as f:
                np.lib.format.write_array(f, y, allow_pickle=False)
    replace_file(out, data.getvalue())


@app.command()
def verify(
    folder: FolderArgument,
    device: DeviceOption = "auto",
    targets: Annotated[
        str | None,
        typer.Option(help="rebuild it for these, or all that run here, and compare: all, or a,b"),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Prove a bundle again: hashes, every layer, every output."""
    from dataclasses import asdict

    from sparrow.bundle import verify_bundle

    if targets is not None:
        _compare_targets(folder, targets, as_json)
        return
    _progress("proving every layer")
    proof = verify_bundle(folder, device)
    _progress.clear()
    if as_json:
        show({"ok": proof.ok, **asdict(proof)})
    else:
        for g in proof.gates:
            print(f"{'ok ' if g.ok else 'BAD'} {g.name}: {printable(g.found)}")
    if not proof.ok:
        raise GateFailed(proof.failure)


def _compare_targets(folder: Path, names: str, as_json: bool) -> None:
    """The same bundle on several targets; exits with 1 where an integer differs or nothing ran."""
    from sparrow.sameness import compare_targets, table

    rows = compare_targets(folder, names, _progress)
    _progress.clear()
    if as_json:
        show([r.as_json() for r in rows])
    else:
        print("\n".join(printable(line) for line in table(rows).splitlines()))
    ran = [r for r in rows[1:] if r.device]
    if not ran or not all(r.ok for r in ran):
        raise typer.Exit(1)


@app.command()
def package(
    folder: FolderArgument,
    kind: Annotated[
        str,
        typer.Option(
            "--as",
            help="arduino, cmake, esp-idf, platformio, stm32cube or zephyr; library; android",
        ),
    ],
    out: Annotated[Path, typer.Option("--out", "-o", help="folder to write")],
) -> None:
    """Write a bundle as a library of another build system; with a self-test for a firmware."""
    from sparrow.packaging import package as write

    write(folder, kind, out)
    print(f"{kind} package: {out}")


@app.command()
def profile(
    folder: FolderArgument,
    entry: EntryOption = None,
    runs: Annotated[int, typer.Option(min=0, help="inferences; 0: half a second")] = 0,
    threads: ThreadsOption = 1,
    device: DeviceOption = "auto",
    as_json: JsonOption = False,
) -> None:
    """Time every step of a bundle, or count its instructions in an emulator."""
    from sparrow.api import load_bundle

    bundle = load_bundle(folder, threads, device)
    counted = bundle.device == "qemu"
    found = bundle.instructions(entry) if counted else bundle.profile(entry, runs)
    if as_json:
        show(found.as_json())
        return
    for line in str(found).splitlines():
        print(printable(line))


@app.command()
def bench(
    model: ModelArgument,
    against: Annotated[str, typer.Option(help="engine to compare with")] = "onnxruntime",
    target: TargetOption = "host",
    shape: ShapeOption = None,
    state: StateOption = None,
    threads: ThreadsOption = 1,
    rounds: Annotated[int, typer.Option(min=5, max=10000)] = 20,
    source: Annotated[
        list[str] | None,
        typer.Option(help="source model of a bundle: model.onnx or name=model.onnx"),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Time a model, or a bundle, against another engine: interleaved, with intervals."""
    from sparrow.api import build as build_bundle
    from sparrow.api import load_bundle, sources_of
    from sparrow.profiling import against_onnxruntime, check_sources_of

    if against != "onnxruntime":
        raise BadInput(f"--against {against!r}", hint="there is onnxruntime")
    folder = Path(model[0])
    if len(model) == 1 and os.path.isdir(folder):
        if not source:
            raise BadInput(
                f"{folder}: onnxruntime needs the source model to be at its best",
                hint="give --source model.onnx",
            )
        bundle = load_bundle(folder, threads)
        sources = sources_of(models_of(source))
        check_sources_of(bundle, sources)
    else:
        shapes, states = shapes_of(shape), states_of(state)
        sources = sources_of(models_of(model), shapes, states)
        bundle = build_bundle(
            models_of(model),
            target,
            shapes=shapes,
            states=states,
            threads=threads,
            progress=_progress,
        )
        _progress.clear()
    rows = [against_onnxruntime(bundle, s, i, rounds) for i, s in enumerate(sources.values())]
    if as_json:
        show([r.as_json() for r in rows])
        return
    for r in rows:
        print(printable(str(r)))


@app.command()
def quantize(
    model: Annotated[Path, typer.Argument(help="model.onnx")],
    out: Annotated[Path, typer.Option("--out", "-o", help="QDQ model to write")],
    calib: CalibOption,
    shape: ShapeOption = None,
    state: StateOption = None,
    ranges: Annotated[
        str | None, typer.Option(help="minmax, percentile, entropy, mse, aciq or octav")
    ] = None,
    weights: Annotated[str | None, typer.Option(help="per_channel or per_tensor")] = None,
    rounding: Annotated[str | None, typer.Option(help="nearest or adaround")] = None,
    bias_correction: Annotated[
        bool | None, typer.Option(help="take the mean error of weights into the bias")
    ] = None,
    equalize: Annotated[
        bool | None, typer.Option(help="even out channels across layers first")
    ] = None,
    symmetric: Annotated[bool | None, typer.Option(help="no zero points")] = None,
    smooth: Annotated[
        float | None, typer.Option(help="SmoothQuant's alpha, 0 to 1, for transformers")
    ] = None,
    precision: Annotated[str | None, typer.Option(help="int8 or int16x8")] = None,
    pin: PinOption = None,
    mean: Annotated[str, typer.Option(help="of image pixels 0..255: 127 or 124,116,104")] = "0",
    std: Annotated[str, typer.Option(help="of image pixels, divided by after mean")] = "255",
    bgr: Annotated[bool, typer.Option("--bgr", help="images are given blue first")] = False,
    evaluation: Annotated[
        Path | None, typer.Option(help="samples it will be judged on: refused in --calib")
    ] = None,
    statistics: Annotated[
        Path | None, typer.Option(help=".npz to write the calibration statistics to")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Write a model with int8 weights and activations for any ONNX runtime."""
    from sparrow.api import Pixels, quantize_model
    from sparrow.portable import to_portable_onnx
    from sparrow.quant import to_npz

    recipe = recipe_of(
        pin,
        None,
        ranges=ranges,
        weights=weights,
        rounding=rounding,
        bias_correction=bias_correction,
        equalize=equalize,
        symmetric=symmetric,
        smooth=smooth,
        precision=precision,
        # said in so many words, it holds for every layer
        residual="int8" if precision == "int8" else None,
    )
    done, layers = quantize_model(
        str(model),
        calib,
        recipe,
        shapes=shapes_of(shape),
        states=states_of(state),
        pixels=Pixels(numbers(mean, "--mean"), numbers(std, "--std"), bgr),
        evaluation=evaluation,
        progress=_progress,
    )
    proto = to_portable_onnx(done.graph)
    data = proto.SerializeToString(deterministic=True)
    _write(out, data)
    if statistics is not None:
        _write(statistics, to_npz(done.calibration))
    _progress.clear()
    opset = proto.opset_import[0].version
    health = done.calibration.health
    if as_json:
        show(quantization_facts(done, layers, len(data), opset))
        return
    print(f"{'layer':40} {'op':8} {'codes':8} {'scale':>11} {'zero':>6} {'SQNR':>9}")
    for r in layers:
        wide = "  sums need int64" if r.layer.wide else ""
        codes = f"{'float':>18}" if r.scale is None else f"{r.scale:11.4g} {r.zero_point:6}"
        print(
            f"{printable(r.layer.name)[:40]:40} {r.layer.op:8} {r.layer.precision:8} "
            f"{codes} {r.sqnr_db:6.1f} dB{wide}"
        )
    for note in health.notes:
        print(f"note: {printable(note)}")
    print(f"{out}: {len(data):,} bytes, opset {opset}, {health.samples} samples")


@app.command()
def blame(
    quantized: Annotated[Path, typer.Argument(help="bundle folder, or a model in QDQ form")],
    model: Annotated[
        Path | None, typer.Option(help="the float model; by default the one inside, as rounded")
    ] = None,
    calib: Annotated[
        Path | None, typer.Option(help="samples: .npz, .npy or a folder of images")
    ] = None,
    shape: ShapeOption = None,
    mean: Annotated[str, typer.Option(help="of image pixels 0..255: 127 or 124,116,104")] = "0",
    std: Annotated[str, typer.Option(help="of image pixels, divided by after mean")] = "255",
    bgr: Annotated[bool, typer.Option("--bgr", help="images are given blue first")] = False,
    apply: Annotated[
        Path | None,
        typer.Option(help="quantize anew with the best cure: .onnx, or a bundle folder to build"),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Say which layer lost the accuracy to int8, why, and what cures it."""
    from sparrow.api import Pixels, load_bundle
    from sparrow.blame import apply_cure, blame_bundle, blame_model

    pixels = Pixels(numbers(mean, "--mean"), numbers(std, "--std"), bgr)
    shapes, source = shapes_of(shape), None if model is None else str(model)
    if apply is not None and (source is None or calib is None):
        raise BadInput("--apply quantizes anew", hint="give --model and --calib as well")
    if quantized.is_dir():
        found = blame_bundle(
            *(load_bundle(quantized), source, calib),
            shapes=shapes,
            pixels=pixels,
            progress=_progress,
        )
    elif calib is None:
        raise BadInput("a model is compared on samples", hint="give --calib")
    else:
        found = blame_model(
            *(str(quantized), source, calib), shapes=shapes, pixels=pixels, progress=_progress
        )
    cure = None
    if apply is not None and source is not None and calib is not None:
        cure = apply_cure(found, source, calib, apply, shapes=shapes, pixels=pixels)
    _progress.clear()
    if as_json:
        show({**found.as_json(), "applied": None if cure is None else cure.what})
        return
    for line in found.lines():
        print(printable(line))
    if cure is not None:
        print(f"{apply}: {printable(cure.what)}")


@app.command()
def diff(
    a: Annotated[Path, typer.Argument(help="model, or bundle folder")],
    b: Annotated[Path, typer.Argument(help="model, or bundle folder")],
    calib: Annotated[
        Path | None, typer.Option(help="samples: .npz, .npy or a folder of images; else drawn")
    ] = None,
    tolerance: Annotated[
        float, typer.Option(min=0, help="share of a value's largest magnitude")
    ] = 1e-3,
    shape: ShapeOption = None,
    mean: Annotated[str, typer.Option(help="of image pixels 0..255: 127 or 124,116,104")] = "0",
    std: Annotated[str, typer.Option(help="of image pixels, divided by after mean")] = "255",
    bgr: Annotated[bool, typer.Option("--bgr", help="images are given blue first")] = False,
    as_json: JsonOption = False,
) -> None:
    """Name the first value where two models, or a model and a bundle, part; exits with 1 if so."""
    from sparrow.api import Pixels
    from sparrow.diff import diff as compare

    found = compare(
        *(str(a), str(b), calib),
        tolerance=tolerance,
        shapes=shapes_of(shape),
        pixels=Pixels(numbers(mean, "--mean"), numbers(std, "--std"), bgr),
    )
    if as_json:
        show(found.as_json())
    else:
        print(printable(str(found)))
    if found.first is not None:
        raise typer.Exit(1)


@app.command()
def reduce(
    model: Annotated[Path, typer.Argument(help="model that fails")],
    out: Annotated[Path, typer.Option("--out", "-o", help="smallest model, .onnx")],
    fails: Annotated[
        str,
        typer.Option(
            help="differs-from-onnxruntime, native-differs, fails-to-build, or file.py:function "
            "of an onnx.ModelProto"
        ),
    ] = "native-differs",
    shape: ShapeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Cut a model down to the smallest one that still shows a failure."""
    from sparrow.reduce import reduce as cut_down

    found = cut_down(str(model), failure_of(fails), shapes=shapes_of(shape), progress=_progress)
    _progress.clear()
    _write(out, found.model.SerializeToString(deterministic=True))
    if as_json:
        show({"nodes": found.nodes, "before": found.before, "tried": found.tried})
    else:
        print(f"{out}: {found}")


def _write(path: Path, data: bytes) -> None:
    try:
        path.write_bytes(data)
    except OSError as e:
        raise BadInput(f"{path} cannot be written: {e.strerror or e}") from None


@app.command()
def targets(
    what: Annotated[list[str] | None, typer.Argument(help="list, or show NAME")] = None,
    as_json: JsonOption = False,
) -> None:
    """List the targets, or show one with every figure and its source."""
    from dataclasses import asdict

    from sparrow.api import resolve_target
    from sparrow.targets import KINDS, device, devices

    words = [w for w in what or () if w not in ("list", "show")]
    if len(words) > 1:
        raise BadInput(f"one target at a time, got {' '.join(words)!r}")
    host = resolve_target("host")
    if words:
        row = device(host.name if words[0] == "host" else words[0])
        if as_json:
            show(asdict(row))
        else:
            for line in str(row).splitlines():
                print(printable(line))
        return
    if as_json:
        show({"host": host.name, "targets": [asdict(d) for d in devices().values()]})
        return
    print(f"{'host':18} {host.name} on this machine")
    for kind in KINDS:
        print(f"\n{kind}")
        for name, d in devices(kind).items():
            how = f"compiles, {d.target.isa.name}" if d.target else "rules only"
            print(f"{name:18} {how:17} {d.title}")


@app.command()
def doctor(as_json: JsonOption = False) -> None:
    """Say whether this machine has what a build needs."""
    from dataclasses import asdict

    from sparrow.doctor import examine

    found = examine()
    if as_json:
        show([asdict(f) for f in found])
    else:
        for f in found:
            print(f"{'ok ' if f.ok else 'BAD'} {f.name:12} {printable(f.text)}")
    if not all(f.ok for f in found):
        raise typer.Exit(1)


@app.command()
def report(
    folder: FolderArgument,
    out: Annotated[Path | None, typer.Option("--out", "-o", help="HTML file to write")] = None,
) -> None:
    """Write report.html anew, with what was measured since the build."""
    from sparrow.publish import replace_file
    from sparrow.receipt import MeasurementsRecord, PlanRecord, ReceiptRecord, load
    from sparrow.report import render

    receipt = load(ReceiptRecord, folder / "receipt.json")
    plan = load(PlanRecord, folder / "plan.json")
    measured = load(MeasurementsRecord, folder / "measurements.json").model_dump()
    path = out or folder / "report.html"
    replace_file(path, render(receipt, plan, measured).encode("utf-8", "replace"))
    print(path)


def _saved_traceback() -> str:
    """Write the current traceback to a file and return its path."""
    from sparrow.device.cache import cache_folder

    text = traceback.format_exc()
    for known in (cache_folder() / "crashes", None):
        try:
            # to ask for the temporary folder is to write to it
            folder = known or Path(tempfile.gettempdir())
            folder.mkdir(parents=True, exist_ok=True)
            handle, name = tempfile.mkstemp(".txt", "sparrow-", folder)
            with os.fdopen(handle, "w", encoding="utf-8", errors="replace") as f:
                f.write(f"{' '.join(sys.argv)}\n{text}")
        except OSError:
            continue
        return name
    return "nowhere: no folder can be written"


def main(arguments: list[str] | None = None) -> None:
    """Entry point of the ``sparrow`` command; exits with 0, 1, 2 or 3."""
    words = (sys.argv[1:] if arguments is None else arguments) or ["--help"]
    # A command lives for seconds and its values are acyclic: collecting every 700 objects is waste.
    gc.set_threshold(50_000)
    sys.exit(run_command(lambda: app(words, prog_name="sparrow", standalone_mode=False)))


def run_command(command: Callable[[], Any]) -> int:
    """Run a command and return its exit code; errors are one line on stderr."""
    try:
        code = command()
        sys.stdout.flush()
        return code if isinstance(code, int) else 0
    except SparrowError as e:
        _progress.clear()
        print(f"error: {e}", file=sys.stderr)
        return e.exit_code
    except (KeyboardInterrupt, typer.Abort):
        _progress.clear()
        print("interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:
        # the reader of our output left; Python would complain once more when it closes stdout
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except Exception as e:  # the last line of defence: nobody else turns a bug into one line
        _progress.clear()
        explain = getattr(e, "format_message", None)
        if explain is not None:  # wrong use of the command line
            print(f"error: {printable(' '.join(explain().split()))}", file=sys.stderr)
            return 2
        where = _saved_traceback()
        what = printable(f"{type(e).__name__}: {' '.join(str(e).split())}")[:300]
        print(f"error: internal error: {what}; traceback: {where}", file=sys.stderr)
        return 3


if __name__ == "__main__":
    main()

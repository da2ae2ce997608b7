"""What commands share: arguments, options, and printing."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sparrow.errors import printable

if TYPE_CHECKING:
    from sparrow.evidence.receipt import SearchRecord
    from sparrow.offload.residency import Residency

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
ConstantOption = Annotated[
    list[str] | None, typer.Option(help="input fixed to a value, which vanishes: sr=16000")
]
DeviceOption = Annotated[
    str,
    typer.Option(
        help="where to run: host, qemu, qemu:<cpu>, node, chromium, ssh:user@host, adb, "
        "adb:<serial>, serial:<port>@<baud>, or auto"
    ),
]
CoresOption = Annotated[
    str, typer.Option(help="cores of an ssh or adb device: big, little, or a list as in 0-3")
]
SustainedOption = Annotated[
    str | None, typer.Option(help="call without a break for so long: 10m; drawn in report.html")
]
JsonOption = Annotated[bool, typer.Option("--json", help="print the same facts as JSON")]
ThreadsOption = Annotated[int, typer.Option(min=1, max=1024, help="threads per call")]
CalibOption = Annotated[Path, typer.Option(help="samples: .npz, .npy or a folder of images")]
EntriesCalibOption = Annotated[
    list[str] | None,
    typer.Option(
        help="samples: .npz, .npy, image or image folder; name=samples for each entry point"
    ),
]
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
MeanOption = Annotated[str, typer.Option(help="of image pixels 0..255: 127 or 124,116,104")]
StdOption = Annotated[str, typer.Option(help="of image pixels, divided by after mean")]
BgrOption = Annotated[bool, typer.Option("--bgr", help="images are given blue first")]
CodeOption = Annotated[
    str, typer.Option(help="of int8: fast, compact, or auto: compact where --size needs it")
]
TuneOption = Annotated[
    str | None, typer.Option(help="measure tiles and algorithms on this machine for so long: 30s")
]
NoTuneOption = Annotated[
    bool, typer.Option("--no-tune", help="choose them by predictions alone, as without --tune")
]
TuningOption = Annotated[
    Path | None, typer.Option(help="measured times: tuning.json of a bundle, or another's")
]
EntryOption = Annotated[str | None, typer.Option(help="entry point; the first by default")]


class Progress:
    """One changing line on stderr; silent when that is no terminal."""

    def __init__(self) -> None:
        self.shown = sys.stderr.isatty()

    def __call__(self, what: str) -> None:
        if self.shown:
            print(f"\r\x1b[K{what} ...", end="", file=sys.stderr, flush=True)

    def clear(self) -> None:
        if self.shown:
            print("\r\x1b[K", end="", file=sys.stderr, flush=True)


progress = Progress()


def show(facts: Any) -> None:
    """Print JSON."""
    print(json.dumps(facts, indent=1))


def show_residency(found: Residency, as_json: bool) -> None:
    """Where the operators of a model run."""
    if as_json:
        show({**asdict(found), "share": found.share})
        return
    for line in str(found).splitlines():
        print(printable(line))


def show_search(s: SearchRecord) -> None:
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

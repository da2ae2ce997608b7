"""What is fuzzed: a row per reader of outside files or words."""

from __future__ import annotations

import contextlib
import io
import json
import os
import random
import shutil
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from html.parser import HTMLParser
from pathlib import Path

from fuzz import hostile, hostile_tflite, nodes
from fuzz.corpus import FOLDER
from fuzz.mutate import Random, mutate_bytes, mutate_json, mutate_lines, mutate_text, mutate_words
from fuzz.protobuf import mutate_model
from fuzz.words import HOSTILE
from sparrow import cli
from sparrow.arguments import recipe_of
from sparrow.checker import check_sources
from sparrow.compiler import Source, compile_sources
from sparrow.device.here import resolve_target
from sparrow.errors import BadBundle
from sparrow.evidence.measurements import MeasurementsRecord
from sparrow.evidence.plan_record import PlanRecord
from sparrow.evidence.receipt import ReceiptRecord
from sparrow.evidence.record import load
from sparrow.evidence.verify import verify_bundle
from sparrow.folder import load_evidence
from sparrow.importers.onnx import import_onnx
from sparrow.importers.tflite import import_tflite
from sparrow.npz import read_arrays
from sparrow.rendering.report import render
from sparrow.samples import load_image
from sparrow.tensor import F32, TensorType
from sparrow.text import parse_graph
from sparrow.tuning import read_tuning

Mutate = Callable[[Random, bytes, Sequence[bytes]], bytes]


@dataclass(frozen=True, slots=True)
class Target:
    """A reader.

    Attributes:
        name: Row name.
        files: Valid inputs, a glob under ``corpus/``, or what gives them.
        mutate: Makes a case of a valid input.
        file: Where the case lies in its folder; ``""`` when it is no file.
        run: Reads a case, given its bytes and its folder; raises SparrowError when it refuses.
        hostile: Cases made by hand.
        exhaustive: Whether truncation at every byte and every bit of every header are cases.
        share: Weight in a campaign.
        may_write: Whether the user asked for files to be written.
        heavy: Whether a case that is accepted is compiled, which costs what the network costs.
    """

    name: str
    files: str | Callable[[], list[bytes]]
    mutate: Mutate
    file: str
    run: Callable[[bytes, Path], None]
    hostile: Callable[[], Sequence[bytes]] = tuple
    exhaustive: bool = True
    share: int = 1
    may_write: bool = False
    heavy: bool = False

    def made(self) -> list[bytes]:
        """Those that once broke the contract, and cases made by hand."""
        folder = FOLDER.parent / "regressions" / self.name
        return [*(p.read_bytes() for p in sorted(folder.glob("*"))), *self.hostile()]

    def seeds(self) -> list[bytes]:
        """The valid inputs."""
        if callable(self.files):
            return self.files()
        return [p.read_bytes() for p in sorted(FOLDER.glob(self.files))]


def _onnx(data: bytes, folder: Path) -> None:
    import_onnx(folder / "m.onnx")


def _check(data: bytes, folder: Path) -> None:
    check_sources({"main": Source(folder / "m.onnx")}, resolve_target("x86_64_v3"))


def _compile(data: bytes, folder: Path) -> None:
    done = compile_sources({"main": Source(folder / "m.onnx")}, resolve_target("x86_64_v3"))
    for name, text in done.artifact.files.items():
        if name.endswith((".c", ".h")):
            assert text.isascii() and b"\0" not in text and b"??" not in text, name


def _tflite(data: bytes, folder: Path) -> None:
    import_tflite(folder / "m.tflite")


def _tflite_compile(data: bytes, folder: Path) -> None:
    compile_sources({"main": Source(folder / "m.tflite")}, resolve_target("x86_64_v3"))


def _graph(data: bytes, folder: Path) -> None:
    parse_graph(data.decode("utf-8", "replace"))


def _receipt(data: bytes, folder: Path) -> None:
    load(ReceiptRecord, folder / "bundle" / "receipt.json")


def _recipe(data: bytes, folder: Path) -> None:
    recipe_of(None, folder / "recipe.json")


def _tuning(data: bytes, folder: Path) -> None:
    """Times of one's own, and a network planned by them."""
    sources = {"main": Source(FOLDER / "onnx" / "classifier.onnx")}
    times = read_tuning(folder / "tuning.json")
    compile_sources(sources, resolve_target("x86_64_v3"), tuning=times)


def _row(data: bytes, folder: Path) -> None:
    """A target row of one's own, and a network planned for it."""
    sources = {"main": Source(FOLDER / "onnx" / "classifier.onnx")}
    compile_sources(sources, resolve_target(str(folder / "row.toml")))


def _plan(data: bytes, folder: Path) -> None:
    load(PlanRecord, folder / "bundle" / "plan.json")


def _evidence(data: bytes, folder: Path) -> None:
    place = folder / "bundle"
    load_evidence(place, load(PlanRecord, place / "plan.json"))


def _verify(data: bytes, folder: Path) -> None:
    """An altered bundle is told from its hashes; its code is not run."""
    assert not verify_bundle(folder / "bundle").ok, "an altered bundle passes"


class _Page(HTMLParser):
    """Counts what a name could have brought in."""

    def __init__(self) -> None:
        super().__init__()
        self.scripts = 0
        self.handlers: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.scripts += tag in ("script", "iframe", "object", "embed", "link", "base", "meta")
        self.handlers += [k for k, _ in attrs if k.startswith("on") or k in ("href", "src")]


def _anatomy(page: str) -> tuple[int, list[str]]:
    found = _Page()
    found.feed(page)
    return found.scripts, sorted(set(found.handlers))


@cache
def _plain_page() -> tuple[int, list[str]]:
    place = FOLDER / "bundle"
    measured = load(MeasurementsRecord, place / "measurements.json").model_dump()
    receipt = load(ReceiptRecord, place / "receipt.json")
    return _anatomy(render(receipt, load(PlanRecord, place / "plan.json"), measured))


def _report(data: bytes, folder: Path) -> None:
    """A page from a bundle with one altered file has the anatomy of the plain one."""
    page = folder / "r.html"
    try:
        _run_words(["report", str(folder / "bundle"), "-o", str(page)])
        assert _anatomy(page.read_text(encoding="utf-8")) == _plain_page(), "the page changed"
    finally:
        page.unlink(missing_ok=True)


def _run_words(words: Sequence[str]) -> None:
    """Run a command; what it says on stderr when it refuses is the SparrowError."""
    err = io.StringIO()
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(err):
        code = cli.run_command(
            lambda: cli.app(list(words), prog_name="sparrow", standalone_mode=False)
        )
    text = err.getvalue()
    if code == 3 or (code == 2 and text.count("\n") != 1):
        raise AssertionError(f"exit code {code}: {text[:300]}")
    if code == 2:
        raise BadBundle(text.strip())


def _arrays(data: bytes, folder: Path) -> None:
    read_arrays(folder / "a.npz")


def _image(data: bytes, folder: Path) -> None:
    load_image(folder / "a.img", "x", TensorType((1, 3, 8, 8), F32))


def _command(data: bytes, folder: Path) -> None:
    """``data`` is a JSON list of words; the command may do anything but break."""
    try:
        words = [str(w) for w in json.loads(data)]
    except (ValueError, RecursionError, TypeError):
        return
    # it works for seconds, on the whole machine
    if words[:1] != ["doctor"]:
        with contextlib.chdir(folder):
            _run_words(words)


def _json_or_bytes(rng: Random, data: bytes, others: Sequence[bytes]) -> bytes:
    if rng.random() < 0.15:
        return mutate_bytes(rng, data, others)
    return mutate_json(rng, data, others)


def _graph_text(rng: Random, data: bytes, others: Sequence[bytes]) -> bytes:
    text = data.decode()
    texts = [o.decode() for o in others]
    how = rng.random()
    if how < 0.1:
        return mutate_bytes(rng, data, others)
    return (mutate_lines if how < 0.3 else mutate_text)(rng, text, texts).encode(
        "utf-8", "surrogatepass"
    )


def _model_or_bytes(rng: Random, data: bytes, others: Sequence[bytes]) -> bytes:
    if rng.random() < 0.15:
        return mutate_bytes(rng, data, others)
    return mutate_model(rng, data, others)


def _archive(rng: Random, data: bytes, others: Sequence[bytes]) -> bytes:
    """An ``.npz`` whose members are changed inside, so that its checksums hold; or bytes."""
    if data[:2] != b"PK" or rng.random() < 0.3:
        return _array(rng, data, others)
    out = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(data)) as z:
        members = [(i.filename, z.read(i)) for i in z.infolist()]
    at = rng.randrange(len(members))
    name, content = members[at]
    match rng.randrange(5):
        case 0:
            members[at] = (rng.choice(HOSTILE)[:60000].replace("\0", "") or "x", content)
        case 1:
            del members[at]
        case 2:
            members[at] = (name, rng.choice(members)[1])
        case _:
            members[at] = (name, _array(rng, content, others))
    how = zipfile.ZIP_DEFLATED if rng.random() < 0.3 else zipfile.ZIP_STORED
    with zipfile.ZipFile(out, "w", how) as z:
        for name, content in members:
            z.writestr(name, content)
    return out.getvalue()


_HEADERS = (
    b"{'descr': '<f4', 'fortran_order': False, 'shape': (1000000, 1000000), }",
    b"{'descr': '<f4', 'fortran_order': False, 'shape': (-1,), }",
    b"{'descr': '|O', 'fortran_order': False, 'shape': (1,), }",
    b"{'descr': [('a', '<f4'), ('b', 'O')], 'fortran_order': False, 'shape': (2,), }",
    b"{'descr': '<f4', 'fortran_order': True, 'shape': (0, 1000000000000), }",
    b"{'descr': '<U1000000', 'fortran_order': False, 'shape': (30000,), }",
    b"{'descr': 'V9', 'fortran_order': False, 'shape': (3,), }",
    b"{'descr': '<M8[s]', 'fortran_order': False, 'shape': (3,), }",
    b"(" * 900,
    b"[" * 5000,
    b"{'descr': '<f4', 'fortran_order': False, 'shape': ((((((3))))),), }",
    b"-" * 9000 + b"1",
    b"{'descr': '<f4', 'fortran_order': False, 'shape': (10**9,), }",
)


def _array(rng: Random, data: bytes, others: Sequence[bytes]) -> bytes:
    """An ``.npy`` with another header; or bytes."""
    if data[:6] != b"\x93NUMPY" or rng.random() < 0.4:
        return mutate_bytes(rng, data, others)
    size = int.from_bytes(data[8:10], "little")
    header, body = data[10 : 10 + size], data[10 + size :]
    if rng.random() < 0.5:
        header = rng.choice(_HEADERS)
    else:
        text = header.decode("latin1")
        header = mutate_text(rng, text, [h.decode() for h in _HEADERS]).encode("utf-8", "replace")
    header = header[:65000] + b"\n"
    return b"\x93NUMPY\x01\0" + len(header).to_bytes(2, "little") + header + body


_OPTIONS = (
    *("--help", "--json", "--target", "--shape", "--state", "--calib", "--evaluate", "--threads"),
    *("--precision", "--drop", "--latency", "--size", "--ram", "--explain", "-o", "--out"),
    *("--entry", "--runs", "--against", "--rounds", "--source", "--", "-", "=", "x=", "=x"),
    *(
        "--pin",
        "--recipe",
        "--tuning",
        "--code",
        "--scheme",
        "--device",
        "--as",
        "--flash",
        "*=int8",
        "[=int8",
    ),
    *(
        "plan",
        "fits",
        "tuning",
        "quantize",
        "blame",
        "diff",
        "package",
        "reduce",
        "recipe.json",
        "row.toml",
    ),
    *("build", "check", "run", "verify", "profile", "bench", "targets", "report", "show", "list"),
    *("m.onnx", "a=m.onnx", "bundle", "fifo", "/dev/zero", "/dev/null", "sub", "none.npy"),
    *("x=1x2x3", "input=99999999999999999999", "x=-1", "x=0x0", "1e999", "-1", "1%", "nan", "20ms"),
)


def _argument_list(rng: Random, data: bytes, others: Sequence[bytes]) -> bytes:
    words: list[str] = list(json.loads(data))
    for _ in range(rng.choice((1, 2, 3))):
        at = rng.randrange(len(words) + 1)
        new = rng.choice(rng.choice((_OPTIONS, _OPTIONS, HOSTILE, json.loads(rng.choice(others)))))
        match rng.randrange(4):
            case 0:
                words[at:at] = [str(new)]
            case 1:
                words[at : at + 1] = [str(new)]
            case 2:
                del words[at : at + 1]
            case _:
                rng.shuffle(words)
    return json.dumps(words).encode()


TARGETS: tuple[Target, ...] = (
    Target("onnx", "onnx/*.onnx", _model_or_bytes, "m.onnx", _onnx, hostile.models, share=80),
    Target("node", nodes.seeds, nodes.mutate, "m.onnx", _onnx, exhaustive=False, share=8),
    Target("node.compile", nodes.seeds, nodes.mutate, "m.onnx", _compile, exhaustive=False,
           heavy=True),
    Target("check", "onnx/*.onnx", _model_or_bytes, "m.onnx", _check, hostile.models, False, 6,
           heavy=True),
    Target("compile", "onnx/*.onnx", _model_or_bytes, "m.onnx", _compile, hostile.models, False, 4,
           heavy=True),
    Target("tflite", "tflite/*.tflite", mutate_words, "m.tflite", _tflite, hostile_tflite.files,
           share=40),
    Target("tflite.compile", "tflite/*.tflite", mutate_words, "m.tflite", _tflite_compile,
           hostile_tflite.files, exhaustive=False, heavy=True),
    Target("graph", "graphs/*.txt", _graph_text, "", _graph, hostile.graphs, share=30),
    Target("receipt", "bundle/receipt.json", _json_or_bytes, "bundle/receipt.json", _receipt,
           hostile.records, share=16),
    Target("recipe", "recipes/*.json", _json_or_bytes, "recipe.json", _recipe, hostile.records,
           share=10),
    Target("tuning", "tunings/*.json", _json_or_bytes, "tuning.json", _tuning, hostile.records,
           share=4, heavy=True),
    Target("row", "rows/*.toml", _graph_text, "row.toml", _row, hostile.rows, share=4, heavy=True),
    Target("plan", "bundle/plan.json", _json_or_bytes, "bundle/plan.json", _plan, hostile.records,
           share=16),
    *(
        Target(f"evidence.{name}", f"bundle/{name}", mutate, f"bundle/{name}", _evidence, made,
               share=4)
        for name, mutate, made in (
            ("graph.txt", _graph_text, hostile.graphs),
            ("plan.json", _json_or_bytes, tuple),
            ("golden.npz", _archive, hostile.archives),
            ("step.onnx", _model_or_bytes, hostile.models),
        )
    ),
    Target("verify", "bundle/receipt.json", _json_or_bytes, "bundle/receipt.json", _verify,
           share=4),
    *(
        Target(f"report.{name}", f"bundle/{name}.json", _json_or_bytes, f"bundle/{name}.json",
               _report, may_write=True, exhaustive=name == "measurements")
        for name in ("receipt", "plan", "measurements")
    ),
    Target("arrays", "samples/*.np[yz]", _archive, "a.npz", _arrays, hostile.archives, share=12),
    Target("image", "samples/pixels.*", mutate_bytes, "a.img", _image, share=12),
    Target("command", "commands/*.json", _argument_list, "", _command, hostile.commands, False, 2,
           True),
)  # fmt: skip
BY_NAME = {t.name: t for t in TARGETS}


def case(
    target: Target, seed: int, index: int, seeds: Sequence[bytes], made: Sequence[bytes]
) -> bytes:
    """Case ``index`` of a target: by hand first, then truncated, then flipped, then at random."""
    at = index
    if at < len(made):
        return made[at]
    at -= len(made)
    if target.exhaustive:
        for data in seeds:
            if at < len(data):
                return data[:at]
            at -= len(data)
        for data in seeds:
            bits = 8 * min(len(data), HEADER_BYTES)
            if at < bits:
                out = bytearray(data)
                out[at // 8] ^= 1 << at % 8
                return bytes(out)
            at -= bits
    rng = random.Random(f"{target.name}:{seed}:{index}")
    return target.mutate(rng, rng.choice(seeds), seeds)


HEADER_BYTES = 64


def exhaustive_count(target: Target, seeds: Sequence[bytes]) -> int:
    """How many cases of a target come before the random ones."""
    found = len(target.made())
    if target.exhaustive:
        found += sum(len(s) + 8 * min(len(s), HEADER_BYTES) for s in seeds)
    return found


def prepare(folder: Path) -> None:
    """What lies beside a case: data to find, and traps."""
    shutil.rmtree(folder, ignore_errors=True)
    (folder / "sub").mkdir(parents=True)
    (folder / "weights.bin").write_bytes(bytes(range(256)))
    (folder / "sub" / "w.bin").write_bytes(bytes(64))
    shutil.copytree(FOLDER / "bundle", folder / "bundle")
    outside = folder.parent / "outside"
    outside.mkdir(exist_ok=True)
    (outside / "secret").write_bytes(bytes(256))
    (folder.parent / "secret").write_bytes(bytes(256))
    (folder / "link.bin").symlink_to(outside / "secret")
    (folder / "linkdir").symlink_to(outside)
    os.mkfifo(folder / "fifo")


__all__ = ["BY_NAME", "TARGETS", "Target", "case", "exhaustive_count", "prepare"]

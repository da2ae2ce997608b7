"""The report: self-contained, safe with hostile names, drawn by a real browser."""

from __future__ import annotations

import re
import subprocess
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import sparrow
from data import missing
from small_models import classifier
from sparrow.bundle import Bundle
from sparrow.device.chromium import find_chromium
from sparrow.errors import BadInput
from sparrow.evidence.gate import Gate
from sparrow.rendering.report import render, short

HOSTILE = (
    "<script>alert(1)</script>",
    "\"'><img src=x onerror=alert(1)>",
    "\u202egnirts\u2066\u200b{{ 7*7 }}",
    "&lt;b&gt; ${x} </style></title>",
    "n" * 10_000,
    "tab\tand\nnewline\x00",
)
FLAGS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
    "--hide-scrollbars",
)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return sparrow.build(classifier(), out=tmp_path_factory.mktemp("report") / "out")


@pytest.fixture(scope="module", params=range(len(HOSTILE)))
def hostile(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    name = HOSTILE[request.param].replace("\x00", "")
    m = classifier(prefix=name)
    m.graph.name = name
    return sparrow.build({name[:200]: m}, out=tmp_path_factory.mktemp("hostile") / "out")


class _Tags(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.handlers: list[str] = []
        self.links: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.handlers += [k for k, _ in attrs if k.startswith("on")]
        self.links += [v or "" for k, v in attrs if k in ("src", "href", "data", "action")]


def page(b: Bundle) -> str:
    return (b.folder / "report.html").read_text(encoding="utf-8")


def test_it_says_what_was_built_and_proved(bundle: Bundle) -> None:
    text = page(bundle)
    for word in ("Proved: ", "conv2d_f32", "conv1", "Arena", "sparrow verify", "SHA-256"):
        assert word in text, word
    assert all(h in text for h in bundle.receipt.files.values())
    assert len(re.findall(r"<rect ", text)) == len(bundle.plan.entries[0].buffers)
    # the verdict comes before everything else that is said
    assert text.index("Proved: ") < text.index("Flash")


def test_it_is_self_contained(bundle: Bundle) -> None:
    text = page(bundle)
    found = _Tags()
    found.feed(text)
    assert not found.links and not found.handlers
    assert not found.tags & {"script", "link", "img", "iframe", "object", "embed", "base"}
    assert not re.search(r"https?://|url\(|@import", text)
    assert "prefers-color-scheme: dark" in text


def test_hostile_names_stay_text(hostile: Bundle) -> None:
    text = page(hostile)
    found = _Tags()
    found.feed(text)
    assert not found.handlers and not found.tags & {"script", "img", "iframe"}
    assert "\u202e" not in text and "\u2066" not in text and "\x00" not in text
    assert "n" * 300 not in text
    assert len(text) < 200_000
    assert text.count("</style>") == 1 and text.index("</style>") < text.index("</head>")
    assert hostile.verify().ok


def test_hostile_names_reach_no_code_and_no_file_name(hostile: Bundle) -> None:
    code = (hostile.folder / "model.c").read_bytes()
    for word in (b"<script", b"<img", "\u202e".encode()):
        assert word not in code
    assert all(re.fullmatch(r"[A-Za-z0-9_.]+", p.name) for p in hostile.folder.iterdir())


def test_names_are_shortened_in_the_middle() -> None:
    assert short("abc") == "abc"
    assert short("a" * 200, 11) == "aaaaa…aaaaa"
    assert short("x\u202ey") == "x\\u202ey"


def test_it_says_how_a_network_was_quantized(monkeypatch: pytest.MonkeyPatch) -> None:
    won = Gate("not slower than float32", "", "", True)
    monkeypatch.setattr("sparrow.assemble.race", lambda *_: (won, {}))
    rng = np.random.default_rng(0)
    calib = [{"x": rng.standard_normal((1, 3, 12, 12), np.float32)} for _ in range(6)]
    b = sparrow.build(classifier(), calib=calib, precision="int8")
    text, (q,) = page(b), b.receipt.quantization or ()
    assert f"{len(q.calibrated)} samples calibrated it, {len(q.held)} w" in text
    assert "int8: 3 layers." in text and f"<li>{q.notes[0]}</li>" in text
    oracle = b.receipt.accuracy[-1]
    assert f"Difference to {oracle.what}</span><b>{oracle.db:.1f} dB</b>" in text


def test_a_bundle_that_was_not_proved_says_so(bundle: Bundle) -> None:
    receipt = bundle.receipt.model_copy(
        update={"ok": False, "verdict": "built, not proved: <b>", "layers": (), "accuracy": ()}
    )
    text = render(receipt, bundle.plan, {})
    assert "Built, not proved: &lt;b&gt;" in text


def browser() -> str:
    """Path of Chromium, or the test ends here."""
    try:
        return find_chromium()
    except BadInput as e:
        missing(str(e))
        raise


def shoot(folder: Path, out: Path, *flags: str) -> Image.Image:
    """A screenshot of the folder's report."""
    profile = out.with_suffix(".profile")
    subprocess.run(
        [
            *(browser(), *FLAGS, *flags, f"--user-data-dir={profile}", "--window-size=1200,900"),
            *(f"--screenshot={out}", (folder / "report.html").as_uri()),
        ],
        capture_output=True,
        timeout=120,
        check=True,
    )
    with Image.open(out) as picture:
        return picture.convert("RGB")


def test_a_browser_draws_it_light_and_dark(bundle: Bundle, tmp_path: Path) -> None:
    light = np.asarray(shoot(bundle.folder, tmp_path / "light.png")).astype(int)
    dark = np.asarray(
        shoot(bundle.folder, tmp_path / "dark.png", "--blink-settings=preferredColorScheme=0")
    ).astype(int)
    assert light.shape == dark.shape == (900, 1200, 3)
    assert light[5, 5].min() > 200 and dark[5, 5].max() < 60
    # text and panels on both: many colours, none of them all of the page
    for picture in (light, dark):
        assert len(np.unique(picture.reshape(-1, 3), axis=0)) > 50


def test_a_browser_runs_nothing_of_a_hostile_page(tmp_path: Path) -> None:
    name = "".join(HOSTILE[:2])
    m = classifier(prefix=name)
    m.graph.name = name
    b = sparrow.build(m, out=tmp_path / "out")
    done = subprocess.run(
        [
            *(browser(), *FLAGS, f"--user-data-dir={tmp_path / 'profile'}", "--dump-dom"),
            (b.folder / "report.html").as_uri(),
        ],
        capture_output=True,
        timeout=120,
        check=True,
    )
    dom = done.stdout.decode("utf-8", "replace")
    assert "Proved: " in dom and "<script" not in dom and "<img" not in dom

"""Names of a model change nothing in emitted code, packages and pages but strings and comments."""

from __future__ import annotations

import re

import onnx
import pytest
from onnx import helper

from fuzz.words import HOSTILE
from small_models import model, value
from sparrow.api import emit_sources
from sparrow.importers.onnx import import_onnx
from sparrow.packaging import FIRMWARE
from sparrow.packaging.sources import Sources
from sparrow.rendering.page import declarations

# what C reads as one string literal or comment
_TEXT = re.compile(r'"(?:[^"\\\n]|\\.)*"|/\*.*?\*/', re.DOTALL)


def named(name: str) -> onnx.ModelProto:
    nodes = [
        helper.make_node("Relu", [name], [f"{name}1"], f"{name}2"),
        helper.make_node("Softmax", [f"{name}1"], [f"{name}3"], f"{name}4"),
    ]
    return model(nodes, [value(name, (1, 4))], [value(f"{name}3", (1, 4))], name=name)


def code(name: str) -> dict[str, str]:
    """The emitted C with every string and comment emptied."""
    files = emit_sources({name: named(name)}, "x86_64")
    return {
        k: _TEXT.sub('""', v.decode("ascii")) for k, v in files.items() if k.endswith((".c", ".h"))
    }


@pytest.mark.parametrize("name", [h for h in HOSTILE if 0 < len(h) <= 200], ids=repr)
def test_a_name_is_only_ever_a_string_or_comment(name: str) -> None:
    plain = code("plain")
    assert code(name) == plain


@pytest.mark.parametrize("kind", FIRMWARE)
def test_a_package_has_the_name_in_plain_words(kind: str) -> None:
    files = dict.fromkeys(("model.c", "model.h", "sparrow.h", "selftest.c", "serve_uart.c"), "")

    def tree(name: str) -> dict[str, str]:
        sources = Sources(files, name, "cortex_m4")
        return {k: v.replace(sources.sentence, "") for k, v in FIRMWARE[kind](sources).items()}

    for name in HOSTILE:
        assert tree(name) == tree("plain"), name


@pytest.mark.parametrize("name", [*(h for h in HOSTILE if h), "// FIRST", "// ENTRIES"], ids=repr)
def test_types_of_a_page_have_names_as_strings(name: str) -> None:
    template = "interface Entries {\n  // ENTRIES\n}\n// FIRST\n"

    def text(name: str) -> str:
        g = import_onnx(named(name.replace("\0", "")), name=name).graph
        return _TEXT.sub('""', declarations(template, (g,)))

    assert text(name) == text("plain")

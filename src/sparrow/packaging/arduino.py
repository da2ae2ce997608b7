"""An Arduino library with a sketch that runs the self-test."""

from __future__ import annotations

from sparrow.packaging.sources import Sources

# The Arduino builder takes no options from a library: what the code needs of gcc stands in it.
_GCC = """\
#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC optimize("O2", "no-strict-aliasing", "fp-contract=off")
#endif
"""

_SKETCH = """\
#include <sparrow_model.h>

void setup() {
  Serial.begin(115200);
  while (!Serial) {
  }
  const unsigned long start = micros();
  const int failed = model_selftest();
  const unsigned long took = micros() - start;
  Serial.print(failed == 0 ? "ok, us: " : "FAILED, us: ");
  Serial.println(took);
}

void loop() {}
"""


def arduino(s: Sources) -> dict[str, str]:
    """Files of a library in the layout of revision 1.5 and later."""
    tree = {f"src/{n}": (_GCC if n.endswith(".c") else "") + t for n, t in s.files.items()}
    tree["src/sparrow_model.h"] = (
        "/* The model and its self-test, for sketches. */\n#ifndef SPARROW_MODEL_H\n"
        '#define SPARROW_MODEL_H\n#include "model.h"\n#ifdef __cplusplus\nextern "C" {\n#endif\n'
        "int model_selftest(void);\n#ifdef __cplusplus\n}\n#endif\n#endif\n"
    )
    tree["examples/selftest/selftest.ino"] = _SKETCH
    tree["library.properties"] = (
        "name=SparrowModel\nversion=1.0.0\nauthor=Sparrow\nmaintainer=Sparrow\n"
        f"sentence={s.sentence}\nparagraph=Generated code; examples/selftest checks it.\n"
        "category=Data Processing\nurl=\narchitectures=*\nincludes=sparrow_model.h\n"
    )
    return tree

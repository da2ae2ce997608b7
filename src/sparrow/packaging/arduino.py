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
#include <sparrow_{name}.h>

void setup() {{
  Serial.begin(115200);
  while (!Serial) {{
  }}
  const unsigned long start = micros();
  const int failed = {name}_selftest();
  const unsigned long took = micros() - start;
  Serial.print(failed == 0 ? "ok, us: " : "FAILED, us: ");
  Serial.println(took);
}}

void loop() {{}}
"""


def arduino(s: Sources) -> dict[str, str]:
    """Files of a library in the layout of revision 1.5 and later."""
    tree = {f"src/{n}": (_GCC if n.endswith(".c") else "") + t for n, t in s.files.items()}
    name, guard = s.name.text, f"SPARROW_{s.name.upper}_H"
    tree[f"src/sparrow_{name}.h"] = (
        f"/* The model and its self-test, for sketches. */\n#ifndef {guard}\n#define {guard}\n"
        f'#include "{name}.h"\n#ifdef __cplusplus\nextern "C" {{\n#endif\n'
        f"int {name}_selftest(void);\n#ifdef __cplusplus\n}}\n#endif\n#endif\n"
    )
    tree["examples/selftest/selftest.ino"] = _SKETCH.format(name=name)
    tree["library.properties"] = (
        f"name=Sparrow{s.name.camel}\nversion=1.0.0\nauthor=Sparrow\nmaintainer=Sparrow\n"
        f"sentence={s.sentence}\nparagraph=Generated code; examples/selftest checks it.\n"
        f"category=Data Processing\nurl=\narchitectures=*\nincludes=sparrow_{name}.h\n"
    )
    return tree

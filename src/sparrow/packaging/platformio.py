"""A PlatformIO library."""

from __future__ import annotations

import json

from sparrow.packaging.sources import NEEDED, Sources


def platformio(s: Sources) -> dict[str, str]:
    """Files of a library: sources in ``src``, headers in ``include``."""
    tree = {f"{'include' if n.endswith('.h') else 'src'}/{n}": t for n, t in s.files.items()}
    about = {
        "name": f"Sparrow{s.name.camel}",
        "version": "1.0.0",
        "description": s.sentence,
        "frameworks": "*",
        "platforms": "*",
        "headers": f"{s.name.text}.h",
        "build": {"flags": ["-I include", *NEEDED], "srcDir": "src", "includeDir": "include"},
    }
    return {**tree, "library.json": json.dumps(about, indent=2) + "\n"}

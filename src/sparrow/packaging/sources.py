"""What every package is made of."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from sparrow.device.flags import cortex_m_flags
from sparrow.packaging.naming import MODEL, Name

# What emitted code needs of a compiler: one arena holds values of different types, and no product
# is fused with a sum behind its back.
NEEDED = ("-ffp-contract=off", "-fno-strict-aliasing")


@dataclass(frozen=True, slots=True)
class Sources:
    """Sources of a bundle.

    Attributes:
        files: ``model.c``, ``model.h``, ``sparrow.h``, ``selftest.c``, ``serve_uart.c`` and its
            header, and ``weights.c`` if there are weights; under the package's name.
        model: The model's own name.
        cpu: zig's ``-mcpu``.
        name: The package's.
    """

    files: Mapping[str, str]
    model: str
    cpu: str
    name: Name = MODEL

    @property
    def compiled(self) -> list[str]:
        """Names of the C files."""
        return sorted(name for name in self.files if name.endswith(".c"))

    @property
    def headers(self) -> list[str]:
        """Names of the headers."""
        return sorted(name for name in self.files if name.endswith(".h"))

    @property
    def sentence(self) -> str:
        """The model in a few plain words that no build system reads anything into."""
        clean = re.sub(r"[^A-Za-z0-9 _.-]+", " ", self.model).strip()[:60]
        return f"Neural network {clean or 'model'}, compiled by Sparrow"

    @property
    def cpu_flags(self) -> list[str]:
        """Options of gcc for the core; empty where its target says it all."""
        return list(cortex_m_flags(self.cpu)) if self.cpu.startswith("cortex_m") else []

"""What the schemas of ONNX say of operators."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import lru_cache
from typing import Any

import onnx

MAX_OPSET = (1 << 31) - 1


@lru_cache(maxsize=4096)
def attribute_types(op_type: str, version: int, domain: str) -> dict[str, int]:
    """Attribute types by name as the operator's schema has them; none without a schema.

    What another version has is of its type there: a decoder serves several versions.
    """
    found: dict[str, int] = {}
    for v in (*_versions(op_type, domain), version):
        try:
            kinds: Mapping[str, Any] = onnx.defs.get_schema(op_type, v, domain).attributes
        except onnx.defs.SchemaError:
            continue
        found |= {name: int(a.type.value) for name, a in kinds.items()}
    return found


def _versions(op_type: str, domain: str) -> Iterator[int]:
    """In which an operator changed, newest first."""
    v = MAX_OPSET
    while v > 0:
        try:
            schema = onnx.defs.get_schema(op_type, v, domain)
        except onnx.defs.SchemaError:
            return
        yield schema.since_version
        v = schema.since_version - 1

"""Mutations of bytes, text and JSON; each takes a random generator and the whole corpus."""

from __future__ import annotations

import json
import random
import re
from collections.abc import Sequence
from typing import Any

from fuzz.words import HOSTILE, INTEGERS

Random = random.Random


def mutate_bytes(rng: Random, data: bytes, others: Sequence[bytes]) -> bytes:
    """One to four changes: bits, bytes, lengths, blocks moved, dropped or taken from elsewhere."""
    out = bytearray(data)
    for _ in range(rng.choice((1, 1, 2, 4))):
        at = rng.randrange(len(out) + 1)
        n = min(rng.choice((1, 1, 2, 4, 8, 32)), len(out) - at)
        match rng.randrange(8):
            case 0 if n:
                out[at] ^= 1 << rng.randrange(8)
            case 1 if n:
                out[at : at + n] = rng.randbytes(n)
            case 2:
                del out[at : at + n]
            case 3:
                out[at:at] = rng.randbytes(rng.choice((1, 2, 8)))
            case 4:
                out[at:at] = out[at : at + n] * rng.choice((1, 2, 50))
            case 5:
                value = rng.choice(INTEGERS) & ((1 << 64) - 1)
                width = rng.choice((1, 2, 4, 8))
                order = rng.choice(("little", "big"))
                out[at : at + width] = (value & ((1 << 8 * width) - 1)).to_bytes(
                    width, "big" if order == "big" else "little"
                )
            case 6:
                other = rng.choice(others)
                start = rng.randrange(len(other) + 1)
                out[at : at + n] = other[start : start + rng.choice((1, 8, 64, 1000))]
            case _:
                out[at : at + n] = rng.choice((b"\0", b"\xff", b"\x80")) * n
    return bytes(out)


def mutate_words(rng: Random, data: bytes, others: Sequence[bytes]) -> bytes:
    """Aligned words changed, as offsets, lengths and vtables of a FlatBuffer are; or bytes."""
    if rng.random() < 0.3 or len(data) < 8:
        return mutate_bytes(rng, data, others)
    out = bytearray(data)
    for _ in range(rng.choice((1, 1, 2, 4))):
        width = rng.choice((2, 4, 4, 8))
        at = rng.randrange(len(out) // width) * width
        old = int.from_bytes(out[at : at + width], "little")
        new = rng.choice(
            (
                old + rng.choice((-8, -4, -1, 1, 2, 4, 8, 64)),
                rng.choice(INTEGERS),
                int.from_bytes(out[(p := rng.randrange(len(out) // width) * width) : p + width],
                               "little"),
            )
        )  # fmt: skip
        out[at : at + width] = (new & ((1 << 8 * width) - 1)).to_bytes(width, "little")
    return bytes(out)


_TOKEN = re.compile(r"[A-Za-z_]\w*|-?\d+(?:\.\d+)?|\s+|.", re.DOTALL)


def mutate_text(rng: Random, text: str, others: Sequence[str]) -> str:
    """Tokens swapped, repeated, dropped, replaced by those of other texts or by hostile ones."""
    tokens = _TOKEN.findall(text)
    other = _TOKEN.findall(rng.choice(others))
    for _ in range(rng.choice((1, 1, 2, 3))):
        if not tokens:
            break
        at = rng.randrange(len(tokens))
        match rng.randrange(8):
            case 0:
                tokens[at] = str(rng.choice(INTEGERS))
            case 1:
                tokens[at] = rng.choice(HOSTILE)
            case 2:
                tokens[at] = json.dumps(rng.choice(HOSTILE))
            case 3 if other:
                tokens[at] = rng.choice(other)
            case 4:
                del tokens[at : at + rng.choice((1, 3))]
            case 5:
                tokens[at:at] = tokens[at : at + rng.choice((1, 3, 9))] * rng.choice((1, 2, 300))
            case 6:
                to = rng.randrange(len(tokens))
                tokens[at], tokens[to] = tokens[to], tokens[at]
            case _:
                tokens[at : at + 1] = [rng.choice("([{<%#:,=x")] * rng.choice((1, 400))
    return "".join(tokens)


def mutate_lines(rng: Random, text: str, others: Sequence[str]) -> str:
    """Lines dropped, repeated, moved or taken from other texts."""
    lines = text.split("\n")
    other = rng.choice(others).split("\n")
    for _ in range(rng.choice((1, 2))):
        at = rng.randrange(len(lines) + 1)
        match rng.randrange(4):
            case 0:
                del lines[at : at + 1]
            case 1:
                lines[at:at] = [rng.choice(other)]
            case 2:
                lines[at:at] = lines[at : at + 1] * rng.choice((1, 2, 200))
            case _:
                rng.shuffle(lines)
    return "\n".join(lines)


def _value(rng: Random) -> Any:
    """A JSON value that somebody may not expect."""
    match rng.randrange(10):
        case 0:
            return rng.choice(INTEGERS)
        case 1:
            return rng.choice((1e308, -1e308, 5e-324, 0.1, float("nan"), float("inf")))
        case 2:
            return rng.choice((None, True, False))
        case 3:
            return 10 ** rng.choice((20, 400, 4000))
        case 4:
            nested: Any = []
            for _ in range(rng.choice((3, 90, 900))):
                nested = rng.choice(([nested], {"a": nested}))
            return nested
        case 5:
            return rng.choice(([], {}, [0] * 2000, {"": ""}))
        case _:
            return rng.choice(HOSTILE)


def mutate_json(rng: Random, data: bytes, others: Sequence[bytes]) -> bytes:
    """Values replaced, dropped, repeated or moved somewhere in the tree."""
    tree = json.loads(data)
    for _ in range(rng.choice((1, 1, 2, 4))):
        node: Any = tree
        while True:
            keys = list(node) if isinstance(node, dict) else range(len(node))
            if not keys:
                break
            key = rng.choice(keys)
            if isinstance(node[key], (dict, list)) and node[key] and rng.random() < 0.8:
                node = node[key]
                continue
            match rng.randrange(6):
                case 0:
                    del node[key]
                case 1 if isinstance(node, dict):
                    node[rng.choice(HOSTILE)] = node.pop(key)
                case 2 if isinstance(node, list):
                    node.extend([node[key]] * rng.choice((1, 2, 300)))
                case 3:
                    node[key] = node[rng.choice(keys)]
                case 4 if isinstance(node[key], int):
                    node[key] += rng.choice((-1, 1, 1000))
                case _:
                    node[key] = _value(rng)
            break
    return json.dumps(tree).encode("utf-8", "surrogatepass")

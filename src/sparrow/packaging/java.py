"""The class file of a Java class that loads a library and declares its methods, nothing else.

So that a package needs no Java compiler. Format: The Java Virtual Machine Specification, chapter 4;
version 52 (Java 8), which Android's tools take.
"""

from __future__ import annotations

import re
import struct

_UTF8, _CLASS, _STRING, _METHOD, _NAME_AND_TYPE = 1, 7, 8, 10, 12
_PUBLIC, _PRIVATE, _STATIC, _FINAL, _SUPER, _NATIVE = 0x1, 0x2, 0x8, 0x10, 0x20, 0x100
_ALOAD_0, _LDC, _RETURN, _INVOKESPECIAL, _INVOKESTATIC = 0x2A, 0x12, 0xB1, 0xB7, 0xB8
_TYPES = {"int": "I", "long": "J", "ByteBuffer": "Ljava/nio/ByteBuffer;"}


class _Constants:
    """The constant pool: entries by content, numbered from 1."""

    def __init__(self) -> None:
        self.entries: dict[bytes, int] = {}

    def _index(self, entry: bytes) -> int:
        return self.entries.setdefault(entry, len(self.entries) + 1)

    def utf8(self, text: str) -> int:
        data = text.encode("ascii")
        return self._index(struct.pack(">BH", _UTF8, len(data)) + data)

    def named(self, tag: int, text: str) -> int:
        """A class or a string."""
        return self._index(struct.pack(">BH", tag, self.utf8(text)))

    def method(self, owner: str, name: str, descriptor: str) -> int:
        pair = struct.pack(">BHH", _NAME_AND_TYPE, self.utf8(name), self.utf8(descriptor))
        ours = self.named(_CLASS, owner), self._index(pair)
        return self._index(struct.pack(">BHH", _METHOD, *ours))


def native_class(source: str, library: str) -> bytes:
    """Compile a final class of the form that `packaging.android` writes.

    Args:
        source: Java text with one package, one class, and ``public static native`` methods over
            int, long, ByteBuffer and arrays of these.
        library: Name of the library that the class loads when it is first used.
    """
    found = re.search(r"package ([\w.]+);.*?public final class (\w+)", source, re.DOTALL)
    assert found is not None
    pool = _Constants()
    this = pool.named(_CLASS, f"{found[1].replace('.', '/')}/{found[2]}")
    above = pool.named(_CLASS, "java/lang/Object")
    made = pool.method("java/lang/Object", "<init>", "()V")
    loads = pool.method("java/lang/System", "loadLibrary", "(Ljava/lang/String;)V")
    name = pool.named(_STRING, library)
    bodies = (
        (_PRIVATE, "<init>", struct.pack(">BBHB", _ALOAD_0, _INVOKESPECIAL, made, _RETURN)),
        (_STATIC, "<clinit>", struct.pack(">BBBHB", _LDC, name, _INVOKESTATIC, loads, _RETURN)),
    )
    methods = [_method(pool, access, n, "()V", code) for access, n, code in bodies]
    for gives, method, takes in re.findall(r"static native (\w+) (\w+)\(([^)]*)\)", source):
        descriptor = f"({''.join(map(_type, takes.split(',')))}){_type(gives)}"
        methods.append(_method(pool, _PUBLIC | _STATIC | _NATIVE, method, descriptor))
    body = struct.pack(">HHHHHH", _PUBLIC | _FINAL | _SUPER, this, above, 0, 0, len(methods))
    body += b"".join(methods) + struct.pack(">H", 0)
    head = struct.pack(">IHHH", 0xCAFEBABE, 0, 52, len(pool.entries) + 1)
    return head + b"".join(pool.entries) + body


def _type(parameter: str) -> str:
    """The descriptor of ``type`` or ``type name``; empty for an empty list."""
    words = parameter.split()
    if not words:
        return ""
    bare = words[0].removesuffix("[]")
    return "[" * (bare != words[0]) + _TYPES[bare]


def _method(pool: _Constants, access: int, name: str, descriptor: str, code: bytes = b"") -> bytes:
    head = struct.pack(">HHH", access, pool.utf8(name), pool.utf8(descriptor))
    if not code:
        return head + struct.pack(">H", 0)
    # one value on the stack, at most one local variable; no handlers, no attributes
    body = struct.pack(">HHI", 1, 1, len(code)) + code + struct.pack(">HH", 0, 0)
    return head + struct.pack(">HHI", 1, pool.utf8("Code"), len(body)) + body

"""Steps that a build holds once for each of several vector lengths, and picks from as it runs.

A part that is compiled for a length says so (``SPARROW_LENGTH``), and its steps have it in their
names; the driver of such a build (``SPARROW_LENGTHS``) asks the processor before each step.
"""

from __future__ import annotations

from collections.abc import Sequence

from sparrow.targets import Isa

_LENGTHS = """\
#define SP_OF_LENGTH_(name, bits) name##_v##bits
#define SP_OF_LENGTH(name, bits) SP_OF_LENGTH_(name, bits)
/* Bits of a vector register. */
SP_INLINE size_t sp_vector_bits(void) {
  size_t bytes;
  __asm__("csrr %0, vlenb" : "=r"(bytes));
  return 8 * bytes;
}"""


def declare_steps(names: Sequence[str], isa: Isa) -> list[str]:
    """The declarations of step functions."""
    plain = [f"SP_LINK void {name}(const sp_frame *f, int task);" for name in names]
    if not isa.lengths:
        return plain
    each = [
        f"void {name}_v{bits}(const sp_frame *f, int task);"
        for name in names
        for bits in isa.lengths
    ]
    renamed = [f"#define {name} SP_OF_LENGTH({name}, SPARROW_LENGTH)" for name in names]
    return [
        *(_LENGTHS, "#ifdef SPARROW_LENGTHS", *each, f"#define SP_STEP(name) {_pick(isa.lengths)}"),
        *("#else", "#define SP_STEP(name) name"),
        *("#ifdef SPARROW_LENGTH", *renamed, "#endif", *plain, "#endif"),
    ]


def step_of(name: str, isa: Isa) -> str:
    """A step function where the driver calls it."""
    return f"SP_STEP({name})" if isa.lengths else name


def _pick(lengths: Sequence[int]) -> str:
    """The longest that the processor has."""
    least, *longer = sorted(lengths)
    text = f"name##_v{least}"
    for bits in longer:
        text = f"sp_vector_bits() >= {bits} ? name##_v{bits} : {text}"
    return f"({text})"

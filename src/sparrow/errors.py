"""Every error a user can cause, each one line: where, expected, found, what to do next."""

from __future__ import annotations


class SparrowError(Exception):
    """Base of all errors a user can cause; ``str()`` is one line, the exit code is 2.

    Args:
        message: Where, what was expected and what was found.
        hint: What the user can do next; shown after the message.
    """

    exit_code = 2

    def __init__(self, message: str, *, hint: str = "") -> None:
        self.message = " ".join(message.split())
        self.hint = " ".join(hint.split())
        text = f"{self.message}; {self.hint}" if self.hint else self.message
        super().__init__(printable(text))


class BadModel(SparrowError):
    """The model file is malformed, too large, or breaks the ONNX specification."""


class BadInput(SparrowError):
    """An argument, array, file or option given by the user is wrong."""


class UnsupportedOp(SparrowError):
    """An operator, or a case of it, has no decoder or no kernel."""


class InvalidGraph(SparrowError):
    """A Graph breaks one of its invariants (types, order, names)."""


class CompileError(SparrowError):
    """The C compiler is missing or refused the emitted code."""


class BadBundle(SparrowError):
    """A bundle folder is incomplete, altered, or from another schema version."""


class DeviceError(SparrowError):
    """A device cannot be reached, was lost, is silent, or has no room."""


class GateFailed(SparrowError):
    """A proof or budget gate did not hold; the exit code is 1.

    Args:
        message: As for every error.
        hint: As for every error.
        gate: Name of the gate.
    """

    exit_code = 1

    def __init__(self, message: str, *, hint: str = "", gate: str = "") -> None:
        super().__init__(message, hint=hint)
        self.gate = gate


def printable(text: str) -> str:
    """Return ``text`` on one line, control and bidirectional characters escaped, cut at 2,000."""
    shown = "".join(
        c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text
    )
    return shown if len(shown) <= 2000 else shown[:1997] + "..."

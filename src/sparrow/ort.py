"""Sessions of ONNX Runtime on the CPU, and what it raises when it does not take a model."""

from __future__ import annotations

from functools import cache
from typing import Any


@cache
def refusals() -> tuple[type[Exception], ...]:
    """The exceptions of ONNX Runtime: its binding has one per status code, with no base in common;
    its Python layer adds ValueError (a missing input) and RuntimeError (an array it cannot take).
    """
    from onnxruntime.capi import onnxruntime_pybind11_state as binding

    classes = [c for c in vars(binding).values() if isinstance(c, type)]
    return (*(c for c in classes if issubclass(c, Exception)), ValueError, RuntimeError)


def first_line(e: Exception) -> str:
    """What an exception says, in one line."""
    return str(e).strip().splitlines()[0][:200] if str(e).strip() else type(e).__name__


def open_session(model: bytes | str, *, optimized: bool, threads: int = 1) -> Any:
    """An ``InferenceSession`` that says nothing of its own.

    Args:
        model: Serialized, or a path.
        optimized: Whether ONNX Runtime may rewrite the graph; else it computes node by node.
        threads: Threads of an operator.

    Raises:
        Exception: One of `refusals`.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    if not optimized:
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 4
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])

"""PyTorch modules as ONNX, by PyTorch's own exporter.

Whoever gives a module has imported torch: it is found where Python keeps it, and imported nowhere.
"""

from __future__ import annotations

import inspect
import logging
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Protocol, TypeGuard

import onnx

from sparrow.errors import BadInput, BadModel
from sparrow.tensor import Array


class TorchModule(Protocol):
    """What is asked of a ``torch.nn.Module``."""

    forward: Callable[..., Any]
    training: bool

    def __call__(self, *args: Any) -> Any: ...

    def modules(self) -> Iterator[Any]: ...

    def parameters(self) -> Iterator[Any]: ...

    def eval(self) -> Any: ...


def is_module(model: object) -> TypeGuard[TorchModule]:
    """Whether a model is a ``torch.nn.Module``."""
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(model, torch.nn.Module)


def parameters_of(module: TorchModule) -> list[str]:
    """Names of what ``forward`` takes by position: those of the model's inputs."""
    places = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    taken = inspect.signature(module.forward).parameters.values()
    return [p.name for p in taken if p.kind in places]


def export_module(module: TorchModule, examples: Mapping[str, Array]) -> onnx.ModelProto:
    """A module in inference mode, for inputs of the shapes of ``examples``.

    Floats become those of the module. Outputs are called as in a dict that ``forward`` returns,
    else ``output``, or ``output_0`` and on.

    Raises:
        BadInput: ``forward`` lacks an example, or does not take them.
        BadModel: PyTorch cannot export it.
    """
    torch: Any = sys.modules["torch"]
    names = parameters_of(module)
    taken = [n for n in names if n in examples]
    if not taken or taken != names[: len(taken)]:
        raise BadInput(
            f"{type(module).__name__}: forward takes {', '.join(names) or 'nothing'}, "
            f"got {', '.join(examples) or 'no shape'}",
            hint="give samples, or the shapes of inputs that are floats",
        )
    training = {m: m.training for m in module.modules()}
    like = next((p for p in module.parameters() if p.is_floating_point()), torch.zeros(1))
    args = tuple(_tensor(torch, examples[n], like) for n in taken)
    module.eval()
    try:
        with torch.no_grad():
            outputs = _names(torch, _called(module, args))
        return _exported(torch, module, args, taken, outputs)
    finally:
        for m, mode in training.items():
            m.training = mode


def _tensor(torch: Any, example: Array, like: Any) -> Any:
    x = torch.from_numpy(example.copy()).to(like.device)
    return x.to(like.dtype) if x.is_floating_point() else x


def _called(module: TorchModule, args: Sequence[Any]) -> Any:
    try:
        return module(*args)
    except Exception as e:  # whatever the user's code raises
        shapes = ", ".join("x".join(map(str, a.shape)) for a in args)
        raise BadInput(
            f"{type(module).__name__} does not take inputs of {shapes}: {_line(e)}",
            hint="give shapes={input: shape}, and samples where an input is no float",
        ) from e


def _exported(
    torch: Any, module: TorchModule, args: Sequence[Any], inputs: list[str], outputs: list[str]
) -> onnx.ModelProto:
    said = logging.getLogger("torch.onnx._internal.exporter._registration")
    level = said.level
    said.setLevel(logging.ERROR)  # it names each operator of a package that is not there
    try:
        program = torch.onnx.export(
            module,
            tuple(args),
            dynamo=True,
            verbose=False,
            input_names=inputs,
            output_names=outputs,
        )
    except Exception as e:  # so many kinds that torch names no common one
        raise BadModel(
            f"torch cannot export {type(module).__name__}: {_line(e)}",
            hint="see what torch.onnx.export(module, args, 'model.onnx', dynamo=True) says, or "
            "give the file that dynamo=False writes",
        ) from e
    finally:
        said.setLevel(level)
    proto: onnx.ModelProto = program.model_proto
    return proto


def _names(torch: Any, result: Any) -> list[str]:
    flat, _ = torch.utils._pytree.tree_flatten(result)
    if isinstance(result, Mapping) and len(flat) == len(result):
        return list(map(str, result))
    return ["output"] if len(flat) == 1 else [f"output_{i}" for i in range(len(flat))]


def _line(e: Exception) -> str:
    """What went wrong first, in one line."""
    while e.__cause__ is not None and isinstance(e.__cause__, Exception):
        e = e.__cause__
    return (str(e).strip().splitlines() or [type(e).__name__])[0]

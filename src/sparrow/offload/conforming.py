"""Recipes under which a quantization keeps to the numeric rules of an accelerator."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from sparrow.errors import BadInput
from sparrow.quant import Recipe
from sparrow.targets import Device, Rules


def conforming(base: Recipe, device: Device, precision: str | None = None) -> Recipe:
    """A recipe under which a quantization keeps to the rules of an accelerator.

    Args:
        base: What the rules leave open is taken from here.
        device: A row with `Rules`.
        precision: ``int8`` or ``int16x8``; None: the first that the device has.

    Raises:
        BadInput: The device has no integers of such widths.
    """
    rules = rules_of(device)
    known = [p for p, w, x in (("int8", 8, 8), ("int16x8", 8, 16)) if _has(rules, w, x)]
    if not known:
        raise BadInput(
            f"{device.title} computes with {', '.join(rules.float_dtypes)} only",
            hint="nothing is quantized for it; its file is made without --calib",
        )
    if precision is not None and precision not in known:
        raise BadInput(f"{device.title} has no {precision}", hint=f"use one of {', '.join(known)}")
    chosen: Any = precision or known[0]
    if rules.weights == "per-tensor" and base.weights != "per_tensor":
        base = replace(base, weights="per_tensor")
    if rules.scales == "power-of-two":
        base = replace(base, scales="power_of_two")
    if not rules.zero_points:
        base = replace(base, symmetric=True)
    pinned = [p for p, v in base.pins if v != "float32" and v not in known]
    if pinned:
        raise BadInput(f"pin {pinned[0]!r} asks for what {device.title} does not have")
    complete = not rules.float_dtypes
    return replace(base, precision=chosen, residual=chosen, complete=complete)


def _has(rules: Rules, weights: int, activations: int) -> bool:
    return weights in rules.weight_bits and activations in rules.activation_bits


def rules_of(device: Device) -> Rules:
    """The numeric rules of a row.

    Raises:
        BadInput: It has none: it is a CPU.
    """
    if device.rules is None:
        raise BadInput(
            f"target {device.name!r} ({device.title}) is no accelerator",
            hint="`sparrow targets` lists those with rules; CPUs are built for",
        )
    return device.rules

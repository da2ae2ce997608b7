"""`sparrow quantize`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sparrow.arguments import (
    constants_of,
    pixels_of,
    quantization_facts,
    recipe_of,
    shapes_of,
    states_of,
)
from sparrow.cli.options import (
    BgrOption,
    ConstantOption,
    JsonOption,
    MeanOption,
    PinOption,
    RecipeOption,
    ShapeOption,
    StateOption,
    StdOption,
    progress,
    show,
    show_residency,
)
from sparrow.errors import BadInput, printable

if TYPE_CHECKING:
    from sparrow.quant import LayerReport


def quantize(
    model: Annotated[Path, typer.Argument(help="model.onnx")],
    out: Annotated[Path, typer.Option("--out", "-o", help="QDQ model to write")],
    calib: Annotated[
        Path | None, typer.Option(help="samples: .npz, .npy or a folder of images")
    ] = None,
    target: Annotated[
        str | None,
        typer.Option(help="accelerator whose numeric rules hold, see `sparrow targets`"),
    ] = None,
    shape: ShapeOption = None,
    state: StateOption = None,
    constant: ConstantOption = None,
    ranges: Annotated[
        str | None, typer.Option(help="minmax, percentile, entropy, mse, aciq or octav")
    ] = None,
    weights: Annotated[
        str | None, typer.Option(help="per_channel, per_tensor or, of matrices, per_group")
    ] = None,
    group: Annotated[int | None, typer.Option(help="inputs per group of weights")] = None,
    weight_bits: Annotated[
        int | None, typer.Option(help="8, or 7: for other engines on processors without VNNI")
    ] = None,
    rounding: Annotated[str | None, typer.Option(help="gptq, nearest or adaround")] = None,
    bias_correction: Annotated[
        bool | None, typer.Option(help="take the mean error of weights into the bias")
    ] = None,
    equalize: Annotated[
        bool | None, typer.Option(help="even out channels across layers first")
    ] = None,
    symmetric: Annotated[bool | None, typer.Option(help="no zero points")] = None,
    smooth: Annotated[
        float | None, typer.Option(help="SmoothQuant's alpha, 0 to 1, for transformers")
    ] = None,
    precision: Annotated[
        str | None, typer.Option(help="int8 or int16x8; or a mode of the target, such as FP16.32")
    ] = None,
    pin: PinOption = None,
    recipe: RecipeOption = None,
    mean: MeanOption = "0",
    std: StdOption = "255",
    bgr: BgrOption = False,
    evaluation: Annotated[
        Path | None, typer.Option(help="samples that judge the layers: refused in --calib")
    ] = None,
    statistics: Annotated[
        Path | None, typer.Option(help=".npz to write the calibration statistics to")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Write a model in int8 for any ONNX runtime.

    With a target, under the rules of an accelerator, and say what runs there and what falls back.
    """
    from sparrow.device.cpu import adds_in_16_bits
    from sparrow.publish import check_file, replace_file
    from sparrow.quant import to_npz
    from sparrow.quantizing import Given, qdq_file, quantize_model
    from sparrow.targets import device

    for made in (out, statistics):
        check_file(made, model, calib, evaluation, recipe)
    how = recipe_of(
        pin,
        recipe,
        ranges=ranges,
        weights=weights,
        group=group,
        weight_bits=weight_bits,
        rounding=rounding,
        bias_correction=bias_correction,
        equalize=equalize,
        symmetric=symmetric,
        smooth=smooth,
        precision=None if target else precision,
        # said in so many words, it holds for every layer
        residual="int8" if precision == "int8" and not target else None,
    )
    given = Given(
        shapes=shapes_of(shape),
        states=states_of(state),
        constants=constants_of(constant),
        pixels=pixels_of(mean, std, bgr),
        evaluation=evaluation,
        progress=progress,
    )
    if target is not None:
        from sparrow.offload import offload

        there = offload(str(model), device(target), calib, how, given, precision=precision)
        data = there.model.SerializeToString(deterministic=True)
        replace_file(out, data)
        if statistics is not None and there.quantized is not None:
            replace_file(statistics, to_npz(there.quantized.calibration))
        progress.clear()
        show_residency(there.residency, as_json)
        if not as_json:
            print(f"{out}: {len(data):,} bytes, opset {there.model.opset_import[0].version}")
        return
    if calib is None:
        raise BadInput("quantization needs samples", hint="give --calib x.npz or an image folder")
    done, layers = quantize_model(str(model), calib, how, given)
    proto = qdq_file(done)
    data = proto.SerializeToString(deterministic=True)
    replace_file(out, data)
    if statistics is not None:
        replace_file(statistics, to_npz(done.calibration))
    progress.clear()
    opset = proto.opset_import[0].version
    health = done.calibration.health
    if as_json:
        show(quantization_facts(done, layers, len(data), opset))
        return
    _show_layers(layers)
    for note in health.notes:
        print(f"note: {printable(note)}")
    if done.recipe.weight_bits > 7 and done.recipe.precision == "int8" and adds_in_16_bits():
        print(
            "note: this processor has no VNNI: ONNX Runtime and OpenVINO add two products in 16"
            " bits here, which saturate; --weight-bits 7 makes weights that do not"
        )
    judges = "those of --evaluation" if evaluation else "the samples, which calibrated"
    print(f"SQNR over the first of {judges}")
    print(f"{out}: {len(data):,} bytes, opset {opset}, {health.samples} samples")


def _show_layers(layers: Sequence[LayerReport]) -> None:
    print(f"{'layer':40} {'op':13} {'codes':8} {'scale':>11} {'zero':>6} {'SQNR':>9}")
    for r in layers:
        wide = "  sums need int64" if r.layer.wide else ""
        codes = f"{'float':>18}" if r.scale is None else f"{r.scale:11.4g} {r.zero_point:6}"
        print(
            f"{printable(r.layer.name)[:40]:40} {r.layer.op:13} {r.layer.precision:8} "
            f"{codes} {r.sqnr_db:6.1f} dB{wide}"
        )

"""Files for accelerators: their rules hold, read from the file itself, and fallbacks are named."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper, numpy_helper
from PIL import Image

from data import data
from small_models import model, value
from sparrow.errors import BadInput
from sparrow.importers.model import import_model
from sparrow.offload import inspect, offload
from sparrow.offload.compression import BLOCK, huffman_bytes, masked_bytes, packed_bytes
from sparrow.offload.residency import Residency
from sparrow.passes import FRONT, optimize
from sparrow.passes.layout import standard_layout
from sparrow.quant import Recipe
from sparrow.quantizing import Given
from sparrow.reference import evaluate
from sparrow.samples import Pixels
from sparrow.targets import device
from sparrow.tensor import Array

INTEGERS = ("edge_tpu", "vitis_dpu", "zhouyi_z1", "zhouyi_z2", "mlu270", "cloud_ai_100", "goya")


def net(last: str = "Softmax") -> onnx.ModelProto:
    """Conv - hard swish - depthwise conv - clip - add - conv - mean - gemm - a last operator."""
    rng = np.random.default_rng(3)

    def weights(*shape: int) -> Array:
        fan = np.prod(shape[1:])
        return np.asarray(rng.standard_normal(shape) / np.sqrt(fan), np.float32)

    constants: dict[str, Array] = {
        "w1": weights(8, 3, 3, 3),
        "b1": weights(8, 1).reshape(8),
        "w2": weights(8, 1, 3, 3),
        "w3": weights(16, 8, 1, 1),
        "w4": weights(5, 16),
        "b4": weights(5, 1).reshape(5),
        "low": np.zeros((), np.float32),
        "high": np.full((), 6, np.float32),
    }
    nodes = [
        helper.make_node("Conv", ["x", "w1", "b1"], ["a"], pads=[1, 1, 1, 1]),
        helper.make_node("HardSwish", ["a"], ["b"]),
        helper.make_node("Conv", ["b", "w2"], ["c"], pads=[1, 1, 1, 1], group=8),
        helper.make_node("Clip", ["c", "low", "high"], ["d"]),
        helper.make_node("Add", ["b", "d"], ["e"]),
        helper.make_node("Conv", ["e", "w3"], ["f"]),
        helper.make_node("GlobalAveragePool", ["f"], ["g"]),
        helper.make_node("Flatten", ["g"], ["h"]),
        helper.make_node("Gemm", ["h", "w4", "b4"], ["i"], transB=1),
        helper.make_node(last, ["i"], ["y"]),
    ]
    return model(nodes, [value("x", (1, 3, 10, 10))], [value("y", (1, 5))], constants)


def images(count: int = 16) -> list[Array]:
    rng = np.random.default_rng(1)
    return [rng.standard_normal((1, 3, 10, 10)).astype(np.float32) for _ in range(count)]


class File:
    """An ONNX file in QDQ form, read without Sparrow."""

    def __init__(self, m: onnx.ModelProto) -> None:
        self.consts = {t.name: numpy_helper.to_array(t) for t in m.graph.initializer}
        self.made = {y: n for n in m.graph.node for y in n.output}
        coding = ("QuantizeLinear", "DequantizeLinear")
        self.coding = [n for n in m.graph.node if n.op_type in coding]
        self.nodes = [n for n in m.graph.node if n.op_type not in coding]
        self.outputs = [o.name for o in m.graph.output]

    def scales(self) -> Iterator[tuple[bool, Array, Array]]:
        """(of a constant, scale, zero point) of everything that is codes."""
        for n in self.coding:
            zero = self.consts[n.input[2]] if len(n.input) > 2 else np.zeros(1, np.int8)
            yield n.input[0] in self.consts, self.consts[n.input[1]], zero

    def floats(self) -> set[str]:
        """Values of real numbers that operators other than clamps read or give away."""
        found = {o for o in self.outputs if self.made[o].op_type != "DequantizeLinear"}
        for n in self.nodes:
            for x in n.input[: 1 if n.op_type in ("Clip", "Reshape") else None]:
                inner = n.op_type in ("Clip", "Relu") and x not in self.consts
                if x and not inner and self.made.get(x, n).op_type != "DequantizeLinear":
                    found.add(x)
        return found


def top(m: onnx.ModelProto, x: Array) -> Array:
    session = ort.InferenceSession(m.SerializeToString())
    feed = x.astype(np.float16) if session.get_inputs()[0].type == "tensor(float16)" else x
    return np.asarray(session.run(None, {"x": feed})[0], np.float32)


@pytest.mark.parametrize("name", INTEGERS)
def test_the_numeric_rules_hold_in_the_file(name: str) -> None:
    row = device(name)
    assert row.rules is not None
    made = offload(net(), row, images())
    onnx.checker.check_model(made.model, full_check=True)
    f = File(made.model)
    for constant, scale, zero in f.scales():
        assert scale.size == 1 or (constant and row.rules.weights == "per-channel")
        if not row.rules.zero_points:
            assert not zero.any()
        if row.rules.scales == "power-of-two":
            assert (np.frexp(scale)[0] == 0.5).all()
    if not row.rules.float_dtypes:
        assert not f.floats()
    # probabilities of five classes: a wrong scale anywhere moves them by tenths
    for x in images(4):
        np.testing.assert_allclose(top(made.model, x), top(net(), x), atol=0.06)


def test_values_of_powers_of_two_are_rescaled_by_shifts() -> None:
    """s_x s_w / s_y of every product is a power of two, as the device computes."""
    f = File(offload(net(), device("vitis_dpu"), images()).model)
    convs = [n for n in f.nodes if n.op_type == "Conv"]
    assert len(convs) == 3
    for n in convs:
        (sx, sw) = (f.consts[f.made[x].input[1]] for x in n.input[:2])
        assert np.frexp(float(sx) * float(sw))[0] == 0.5


def test_an_operator_the_device_lacks_falls_back_with_its_reason() -> None:
    found = offload(net(), device("vitis_dpu"), images()).residency
    host = [p for p in found.ops if p.where == "host"]
    assert [(p.op, p.why) for p in host] == [("Softmax", "Softmax is not among its operators")]
    assert found.parts == 1 and found.share == 1.0


def test_one_part_ends_at_the_first_operator_the_device_lacks() -> None:
    proto = net()
    proto.graph.node[1].op_type = "Erf"
    found = offload(proto, device("edge_tpu"), images()).residency
    where = [p.where for p in found.ops]
    first = where.index("host")
    assert found.ops[first].op == "Erf" and set(where[first:]) == {"host"}
    assert all("takes one part" in p.why for p in found.ops[first + 1 :])
    assert found.parts == 1 and 0 < found.share < 1


def test_the_inspector_judges_operators_before_anything_is_quantized() -> None:
    before = inspect(net(), device("vitis_dpu"))
    after = offload(net(), device("vitis_dpu"), images()).residency
    assert [p.op for p in before.ops if p.where == "host"] == ["Softmax"]
    assert before.share == after.share == 1.0
    assert (
        sum(p.macs for p in before.ops)
        == sum(p.macs for p in after.ops)
        == (100 * 8 * 27 + 100 * 8 * 9 + 100 * 16 * 8 + 16 * 5)
    )


def test_a_foreign_file_is_told_which_rule_it_breaks() -> None:
    """int8 as made for CPUs: zero points, scales per channel, none a power of two."""
    from sparrow.api import quantize

    usual = quantize(net(), images())
    found = inspect(usual, device("vitis_dpu"))
    reasons = {p.why.split(" has ")[-1].split(" ")[0] for p in found.ops if p.where == "host"}
    assert all(p.where == "host" for p in found.ops if p.op == "Conv")
    assert reasons & {"zero", "8", "scale"}
    assert any("stays float" in p.why for p in inspect(usual, device("edge_tpu")).ops)


def test_parameters_beyond_the_chip_are_moved_in_every_call() -> None:
    row = device("edge_tpu")
    assert row.rules is not None
    small = replace(row, rules=replace(row.rules, parameter_bytes=100))
    kept = offload(net(), row, images()).residency
    over = offload(net(), small, images()).residency
    assert over.parameter_bytes == kept.parameter_bytes > 100
    assert over.moved_bytes == kept.moved_bytes + kept.parameter_bytes - 100
    assert "are fetched in every call" in str(over)


def test_compressed_feature_maps_move_less() -> None:
    plain, packed = device("zhouyi_z1"), device("zhouyi_z2")
    a = offload(net(), plain, images()).residency
    b = offload(net(), packed, images()).residency
    assert [p.name for p in a.ops] == [p.name for p in b.ops]
    # behind the clip half of the values are zeros
    assert b.moved_bytes < a.moved_bytes


@pytest.mark.parametrize("mode", ["FP16.16", "FP16.32", "FP32.32"])
def test_a_device_of_floats_gets_its_float_type(mode: str) -> None:
    made = offload(net(), device("ipu_gc2"), precision=mode)
    kinds = {t.data_type for t in made.model.graph.initializer if t.data_type != TensorProto.INT64}
    assert kinds == {TensorProto.FLOAT16 if mode.startswith("FP16") else TensorProto.FLOAT}
    assert made.quantized is None and made.residency.mode == mode
    (x,) = images(1)
    np.testing.assert_allclose(top(made.model, x), top(net(), x), atol=2e-3)


def test_sixteen_bits_where_the_device_has_them() -> None:
    made = offload(net(), device("mlu270"), images(), precision="int16x8")
    assert made.residency.mode == "int16x8"
    kinds = {t.data_type for t in made.model.graph.initializer}
    assert TensorProto.INT16 in kinds


@pytest.mark.parametrize(
    ("name", "given", "message"),
    [
        ("rpi4", {"calib": images(2)}, "is no accelerator"),
        ("edge_tpu", {}, "needs samples"),
        ("edge_tpu", {"calib": images(2), "precision": "int16x8"}, "has no int16x8"),
        ("ipu_gc2", {"calib": images(2)}, "float16, float32 only"),
        ("ipu_gc2", {"precision": "FP8.8"}, "has no FP8.8"),
        (
            "edge_tpu",
            {"calib": images(2), "recipe": Recipe(pins=(("*", "int16x8"),))},
            "does not have",
        ),
    ],
)
def test_what_a_device_cannot_is_one_line(name: str, given: dict[str, Any], message: str) -> None:
    with pytest.raises(BadInput, match=message):
        offload(net(), device(name), **given)


def test_images_that_judge_are_read_as_those_that_calibrate(tmp_path: Path) -> None:
    rng = np.random.default_rng(5)
    for k in range(4):
        pixels = rng.integers(0, 256, (10, 10, 3), np.uint8)
        Image.fromarray(pixels).save(tmp_path / f"{k}.png")
    given = Given(pixels=Pixels((127.0,), (128.0,)), evaluation=tmp_path)
    with pytest.raises(BadInput, match="evaluation"):
        offload(net(), device("edge_tpu"), tmp_path, given=given)


def test_every_accelerator_yields_a_file() -> None:
    from sparrow.targets import devices

    for row in devices("accelerator").values():
        assert row.rules is not None
        calib = images(2) if row.rules.weight_bits else None
        found: Residency = offload(net(), row, calib).residency
        assert found.parts >= 1 and found.device == row.name


def test_packed_weights_by_hand() -> None:
    zeros = np.zeros(BLOCK, np.int8)
    assert packed_bytes(zeros) == 4 + BLOCK // 8
    rng = np.random.default_rng(0)
    noise = rng.integers(-128, 128, BLOCK).astype(np.int8)
    assert packed_bytes(noise) == 4 + BLOCK
    assert packed_bytes(np.concatenate([zeros, noise])) == 8 + BLOCK // 8 + BLOCK
    few = rng.integers(1, 9, BLOCK).astype(np.int8)
    # eight symbols, equally often: three bits each, which beats the palette's four
    assert packed_bytes(few) < 4 + 16 + BLOCK // 2
    assert packed_bytes(np.zeros(0, np.int8)) == 0


def test_a_huffman_code_is_within_a_bit_of_the_entropy() -> None:
    x = np.clip(np.random.default_rng(0).normal(0, 12, BLOCK), -127, 127).astype(np.int8)
    counts = np.bincount(x.view(np.uint8), minlength=256)
    p = counts[counts > 0] / BLOCK
    entropy = -(p * np.log2(p)).sum() * BLOCK / 8
    assert entropy <= huffman_bytes(counts) - 128 <= entropy + BLOCK / 8


def test_a_mask_of_zeros_by_hand() -> None:
    x = np.array([[3, 5, 3, 3], [3, 3, 3, 7]], np.int8)
    assert masked_bytes(x, 3) == 2 + 2
    assert masked_bytes(x, 0) == 2 + 8


def test_channels_last_networks_become_a_file_without_transposes_between_codes() -> None:
    """A TFLite network's convolutions read and write codes, as a device without floats asks."""
    path = data("models/mlperf_tiny/kws_dscnn_fp32.tflite")
    rng = np.random.default_rng(0)
    frames = [rng.standard_normal((1, 49, 10, 1)).astype(np.float32) for _ in range(8)]
    done = offload(path, device("edge_tpu"), frames)
    assert {p.where for p in done.residency.ops} == {"device"}
    assert not [n for n in done.model.graph.node if n.op_type == "Transpose"]
    coded = inspect(data("models/mlperf_tiny/kws_dscnn_int8.tflite"), device("edge_tpu"))
    assert {p.where for p in coded.ops} == {"device"}


@pytest.mark.parametrize("name", ["kws_dscnn_fp32", "resnet8_cifar10_fp32", "resnet8_cifar10_int8"])
def test_the_standard_layout_computes_the_same(name: str) -> None:
    g = optimize(import_model(data(f"models/mlperf_tiny/{name}.tflite")).graph, FRONT)
    turned = standard_layout(g)
    assert all(getattr(n.op, "channels_last", False) is False for n in turned.nodes)
    (x,) = g.inputs
    rng = np.random.default_rng(5)
    values = rng.integers(-128, 128, g.types[x].shape).astype(g.types[x].dtype.numpy)
    (want,), (got,) = (evaluate(h, {x: values}).values() for h in (g, turned))
    np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-6)
    assert standard_layout(turned) is turned

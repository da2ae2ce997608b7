"""Each peer's own form of a network: what its own tools make of it, from the same few inputs.

ONNX Runtime: its static quantizer, unsigned activations by signed weights per channel, as QDQ and
as QOperator. OpenVINO: NNCF. LiteRT: what onnx2tf and TensorFlow's converter make, float32 and
int8 with float inputs and outputs. Where sums of bytes saturate, on x86 without VNNI, both of the
former make weights of seven bits, which they multiply as fast. MNN's quantizer (mnnquant 3.6)
aborts on MobileNetV2, the one network tried, and ncnn's Python package brings none.
"""

import hashlib
import tempfile
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnxruntime.quantization import QuantFormat, QuantType

import accuracy
from network import Network, RefusedError, convert
from sparrow.device.cache import FileCache, cache_folder
from sparrow.device.cpu import adds_in_16_bits

# one network is measured at a time, with several thread counts
_once = lru_cache(maxsize=2)


@_once
def by_onnxruntime(network: Network, form: QuantFormat) -> onnx.ModelProto:
    """Unsigned activations by signed weights: what ONNX Runtime multiplies fastest."""
    types = {"activation_type": QuantType.QUInt8, "weight_type": QuantType.QInt8}
    quantizer = accuracy.onnxruntime(
        per_channel=True, quant_format=form, reduce_range=adds_in_16_bits(), **types
    )
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "float.onnx"
        onnx.save(network.model, path)
        try:
            return quantizer(path, [dict(f) for f in network.inputs])
        except Exception as error:  # its quantizer raises what it likes
            raise RefusedError(f"its quantizer: {error}") from error


@_once
def by_nncf(network: Network) -> Any:
    """OpenVINO's own representation, quantized by NNCF: its defaults, which are its fastest."""
    try:
        import nncf
        import openvino
    except ImportError as error:
        raise RefusedError(f"{error.name} is not installed") from error
    nncf.set_log_level(50)
    try:
        model = openvino.Core().read_model(network.model.SerializeToString())
        data = nncf.Dataset([dict(f) for f in network.inputs])
        fix = nncf.OverflowFix.ENABLE if adds_in_16_bits() else None
        advanced = nncf.AdvancedQuantizationParameters(overflow_fix=fix)
        return nncf.quantize(
            model, data, subset_size=len(network.inputs), advanced_parameters=advanced
        )
    except Exception as error:  # its quantizer raises what it likes
        raise RefusedError(f"NNCF: {' '.join(str(error).split())[:200]}") from error


def by_onnx2tf(network: Network, *, int8: bool) -> bytes:
    """A TFLite file, float32 or int8; images are NHWC. Conversions are slow, and cached."""
    model = network.model.SerializeToString()
    digest = hashlib.sha256(b"onnx2tf" + model)
    for feeds in network.inputs:
        for value in feeds.values():
            digest.update(value.tobytes())
    cache, key, made = FileCache(cache_folder()), digest.hexdigest(), ("_float32", "_integer_quant")
    known = cache.get(key, f"{made[int8]}.tflite")
    if known is None:
        with cache.scratch() as folder:
            _run_onnx2tf(network, folder)
            for kind in made:
                cache.put(key, f"{kind}.tflite", folder / "out" / f"model{kind}.tflite")
        known = cache.get(key, f"{made[int8]}.tflite")
        assert known is not None
    return known.read_bytes()


def _run_onnx2tf(network: Network, folder: Path) -> None:
    onnx.save(network.model, folder / "model.onnx")
    # the converter would download these for a check of its own
    sample = np.zeros((20, 128, 128, 3), np.float32)
    np.save(folder / "calibration_image_sample_data_20x128x128x3_float32.npy", sample)
    command = ["onnx2tf", "-i", "model.onnx", "-o", "out", "-oiqt"]
    for at, name in enumerate(network.inputs[0]):
        values = np.concatenate([f[name] for f in network.inputs])
        if values.ndim == 4:
            values = np.ascontiguousarray(values.transpose(0, 2, 3, 1))
        np.save(folder / f"in{at}.npy", values)
        mean, deviation = (f"{'[' * values.ndim}{v}{']' * values.ndim}" for v in (0, 1))
        command += ["-cind", name, f"in{at}.npy", mean, deviation]
    convert(command, folder, "out/model_integer_quant.tflite")


def tflite(network: Network, *, int8: bool) -> bytes:
    """The TFLite file a network came from, or a converted one.

    Raises:
        RefusedError: There is none, and the converter is missing or fails.
    """
    if network.tflite is not None:
        path = network.tflite
        if int8:
            path = path.with_name(path.name.replace("_fp32", "_int8"))
        if path.exists() and (path != network.tflite or not int8):
            return path.read_bytes()
    return by_onnx2tf(network, int8=int8)

"""Who runs the networks: `ENGINES`, one row each. Each engine gets its own best settings.

All but Sparrow and ONNX Runtime are optional: what is not installed refuses. ncnn and MNN take the
ONNX file through their own converters (pnnx, mnnconvert); LiteRT takes the file a network came
from.
"""

import math
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
from onnxruntime.quantization import QuantFormat

import quantized
from models import Feeds
from nets.build import Array
from network import Network, RefusedError, convert
from sparrow.device.cpu import adds_in_16_bits
from sparrow.importers.model import import_model
from sparrow.ort import first_line, refusals
from sparrow.quant.recipe import Recipe

Outputs = dict[str, Array]
Run = Callable[[Feeds], Outputs]

# Largest difference allowed from the baseline, as a share of the reference's largest magnitude.
# float32: five times the worst seen (1.9e-5, detector_n) between ONNX Runtime with and without
# optimisation and OpenVINO, over all cases. bfloat16: the end-to-end gate of a build.
TOLERANCE = {"float32": 1e-4, "bfloat16": 0.0625}
# Precisions of codes: 8-bit weights in both.
CODED = ("int8", "int16x8")
PRECISIONS = (*TOLERANCE, *CODED)
# Variance of the error that codes of 8 bits add at a layer, as a share of its own: 255 steps over
# five deviations to each side for activations, over three and a half for weights, each rounded by
# a twelfth of a step squared. Layers are of like variance and their errors independent, so they
# add; twice the deviation of the sum is allowed. Seen: ONNX Runtime's quantizer and ours reach
# 0.1 to 0.9 of the sum's deviation (mobilenet_v3_small).
LAYER_NOISE = ((10 / 255) ** 2 + (7 / 255) ** 2) / 12

RECIPES = {
    # 8 bits everywhere, as every peer's
    "int8": Recipe(residual="int8"),
    # and weights of 7, as ONNX Runtime's and OpenVINO's where their sums saturate
    "int8_w7": Recipe(residual="int8", weight_bits=7),
    # 16-bit activations in a transformer's products, as by default
    "int16x8": Recipe(),
}


def coded_tolerance(layers: int) -> float:
    """Largest root of the mean squared error of an output after so many products, as a share of
    the output's deviation.
    """
    return 2 * math.sqrt(layers * LAYER_NOISE)


@dataclass(frozen=True, slots=True)
class Engine:
    """`load(network, threads)` returns the call that is timed, or raises RefusedError."""

    name: str
    package: str
    load: Callable[[Network, int], Run]
    precision: str = "float32"

    def version(self) -> str:
        try:
            return version(self.package)
        except PackageNotFoundError:
            return ""


def _module(name: str) -> object:
    try:
        return import_module(name)
    except ImportError as error:
        raise RefusedError(f"{name} is not installed") from error


def load_sparrow(network: Network, threads: int, precision: str = "float32") -> Run:
    import sparrow
    from sparrow.errors import SparrowError

    model = network.model
    try:
        if precision in RECIPES:
            model = sparrow.quantize(model, network.inputs, RECIPES[precision])
            bundle = sparrow.build(model, target="host", threads=threads)
        else:
            bundle = sparrow.build(model, target="host", precision=precision, threads=threads)
    except SparrowError as error:
        raise RefusedError(str(error)) from error
    return lambda feeds: bundle.run(dict(feeds))


def load_onnxruntime(network: Network, threads: int, int8: QuantFormat | None = None) -> Run:
    """All optimisations, spinning workers, sequential graph: its fastest settings at batch 1."""
    model = network.model if int8 is None else quantized.by_onnxruntime(network, int8)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
    options.add_session_config_entry("session.intra_op.allow_spinning", "1")
    options.log_severity_level = 3
    try:
        session = onnxruntime.InferenceSession(
            model.SerializeToString(), options, providers=["CPUExecutionProvider"]
        )
    except refusals() as error:  # what its own quantizer made, of networks with odd poolings
        raise RefusedError(first_line(error)) from error
    names = [output.name for output in session.get_outputs()]
    return lambda feeds: dict(zip(names, session.run(names, dict(feeds)), strict=True))


def load_openvino(network: Network, threads: int, *, int8: bool = False, hint: str = "f32") -> Run:
    """Latency hint, one stream, float32 (the plugin would choose bfloat16 where the CPU has it)."""
    openvino = _module("openvino")
    core = openvino.Core()  # type: ignore[attr-defined]
    config = {
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_NUM_THREADS": threads,
        "NUM_STREAMS": 1,
        "INFERENCE_PRECISION_HINT": hint,
    }
    model = network.model
    try:
        read = quantized.by_nncf(network) if int8 else core.read_model(model.SerializeToString())
        request = core.compile_model(read, "CPU", config).create_infer_request()
    except RuntimeError as error:
        raise RefusedError(" ".join(str(error).split())) from error
    names = [output.name for output in model.graph.output]

    def run(feeds: Feeds) -> Outputs:
        results = request.infer(dict(feeds), share_inputs=True)
        return {name: np.array(results[name]) for name in names}

    return run


def _input_shapes(model: onnx.ModelProto) -> list[list[int]]:
    stored = {t.name for t in model.graph.initializer}
    return [
        [d.dim_value for d in i.type.tensor_type.shape.dim]
        for i in model.graph.input
        if i.name not in stored
    ]


def load_ncnn(network: Network, threads: int) -> Run:
    """float32 storage and arithmetic, its Winograd and packed layouts on."""
    ncnn = _module("ncnn")
    model = network.model
    shapes = ",".join(str(s).replace(" ", "") for s in _input_shapes(model))
    if any(v.dtype != np.float32 or v.shape[0] != 1 for f in network.inputs for v in f.values()):
        raise RefusedError("inputs are not float32 of batch 1")
    net = ncnn.Net()  # type: ignore[attr-defined]
    net.opt.num_threads = threads
    net.opt.use_fp16_packed = net.opt.use_fp16_storage = net.opt.use_fp16_arithmetic = False
    net.opt.use_bf16_storage = False
    with tempfile.TemporaryDirectory() as folder:
        onnx.save(model, Path(folder) / "model.onnx")
        command = ["pnnx", "model.onnx", f"inputshape={shapes}", "fp16=0"]
        param = convert(command, Path(folder), "model.ncnn.param")
        if net.load_param(str(param)) or net.load_model(str(param.with_suffix(".bin"))):
            raise RefusedError("ncnn cannot load what pnnx made")
    names = [output.name for output in model.graph.output]

    def run(feeds: Feeds) -> Outputs:
        extractor = net.create_extractor()
        for i, value in enumerate(feeds.values()):
            extractor.input(f"in{i}", ncnn.Mat(value[0]))  # type: ignore[attr-defined]
        found = {}
        for i, name in enumerate(names):
            status, value = extractor.extract(f"out{i}")
            if status:
                raise RefusedError(f"ncnn fails on output {name}")
            found[name] = np.array(value)[None]
        return found

    return run


def load_mnn(network: Network, threads: int) -> Run:
    """CPU backend, high precision (float32)."""
    mnn = _module("MNN")
    model = network.model
    stored = {t.name for t in model.graph.initializer}
    inputs = [i.name for i in model.graph.input if i.name not in stored]
    outputs = [o.name for o in model.graph.output]
    setting = {"backend": "CPU", "precision": "high", "numThread": threads}
    manager = mnn.nn.create_runtime_manager((setting,))  # type: ignore[attr-defined]
    with tempfile.TemporaryDirectory() as folder:
        onnx.save(model, Path(folder) / "model.onnx")
        command = ["mnnconvert", "-f", "ONNX", "--modelFile", "model.onnx", "--MNNModel"]
        path = convert([*command, "model.mnn", "--bizCode", "bench"], Path(folder), "model.mnn")
        net = mnn.nn.load_module_from_file(  # type: ignore[attr-defined]
            str(path), inputs, outputs, runtime_manager=manager
        )
    expr = mnn.expr  # type: ignore[attr-defined]
    types = {"float32": expr.float, "int32": expr.int, "int64": expr.int}

    def variable(value: Array) -> object:
        kind = types.get(str(value.dtype))
        if kind is None:
            raise RefusedError(f"MNN takes no {value.dtype} from NumPy")
        narrow = value.astype(np.int32) if value.dtype == np.int64 else value
        return expr.const(narrow, list(value.shape), expr.NCHW, kind)

    def run(feeds: Feeds) -> Outputs:
        found = net.forward([variable(feeds[name]) for name in inputs])
        values = found if isinstance(found, list | tuple) else [found]
        return {name: np.array(v.read()) for name, v in zip(outputs, values, strict=True)}

    return run


def load_litert(network: Network, threads: int, *, int8: bool = False) -> Run:
    """XNNPACK, its default delegate. Images reach it as NHWC, turned before they are timed."""
    litert = _module("ai_edge_litert.interpreter")
    net = litert.Interpreter(  # type: ignore[attr-defined]
        model_content=quantized.tflite(network, int8=int8), num_threads=threads
    )
    try:
        net.allocate_tensors()
    except RuntimeError as error:  # operators of TensorFlow that the converter left in
        raise RefusedError(" ".join(str(error).split())[:200]) from error
    places, results = net.get_input_details(), net.get_output_details()
    order = _outputs_in_order(network, [tuple(r["shape"]) for r in results])

    def fed(feeds: Feeds) -> list[Array]:
        """The inputs in the order, layout and code of the file."""
        left, values = dict(feeds), []
        for place in places:
            key = next((k for k in left if k in place["name"]), next(iter(left)))
            value = left.pop(key)
            if list(value.shape) != list(place["shape"]) and value.ndim > 2:
                value = np.ascontiguousarray(np.moveaxis(value, 1, -1))
            values.append(_coded(value, place["dtype"], *place["quantization"]))
        return values

    ready = {id(feeds): fed(feeds) for feeds in network.inputs}

    def run(feeds: Feeds) -> Outputs:
        for place, value in zip(places, ready[id(feeds)], strict=True):
            net.set_tensor(place["index"], value)
        net.invoke()
        found = {}
        for place, (name, shape) in zip(results, order, strict=True):
            value = _decoded(net.get_tensor(place["index"]), *place["quantization"])
            found[name] = value if value.shape == shape else np.moveaxis(value, -1, 1)
        return found

    return run


def _coded(x: Array, dtype: type, scale: float, zero: int) -> Array:
    """Codes of real numbers, where a tensor has a scale."""
    if not scale or dtype == x.dtype:
        return x.astype(dtype)
    limits = np.iinfo(dtype)
    codes: Array = np.clip(
        np.rint(x.astype(np.float32) / np.float32(scale)) + zero, limits.min, limits.max
    )
    return codes.astype(dtype)


def _decoded(q: Array, scale: float, zero: int) -> Array:
    if not scale:
        return q
    real: Array = (q.astype(np.float32) - np.float32(zero)) * np.float32(scale)
    return real


def _outputs_in_order(
    network: Network, shapes: Sequence[tuple[int, ...]]
) -> list[tuple[str, tuple[int, ...]]]:
    """(name, shape) of the network's output that each of a file's is, by its extents."""
    graph = import_model(network.model).graph
    left = {name: graph.types[name].shape for name in graph.outputs}
    found = []
    for shape in shapes:
        like = [n for n, s in left.items() if sorted(s) == sorted(shape)]
        if not like:
            raise RefusedError(f"an output of shape {shape} is none of the network's")
        found.append((like[0], left.pop(like[0])))
    return found


SEVEN_BITS = Engine(
    "sparrow_int8_w7", "sparrow-ai", partial(load_sparrow, precision="int8_w7"), "int8"
)
ENGINES = (
    Engine("sparrow", "sparrow-ai", load_sparrow),
    Engine("sparrow_bf16", "sparrow-ai", partial(load_sparrow, precision="bfloat16"), "bfloat16"),
    Engine("sparrow_int8", "sparrow-ai", partial(load_sparrow, precision="int8"), "int8"),
    Engine("sparrow_int16x8", "sparrow-ai", partial(load_sparrow, precision="int16x8"), "int16x8"),
    *((SEVEN_BITS,) if adds_in_16_bits() else ()),
    Engine("onnxruntime", "onnxruntime", load_onnxruntime),
    *(
        Engine(f"onnxruntime_{form.name.lower()}", "onnxruntime", load, "int8")
        for form in QuantFormat
        for load in [partial(load_onnxruntime, int8=form)]
    ),
    Engine("openvino", "openvino", load_openvino),
    Engine("openvino_bf16", "openvino", partial(load_openvino, hint="bf16"), "bfloat16"),
    Engine("openvino_int8", "openvino", partial(load_openvino, int8=True), "int8"),
    Engine("ncnn", "ncnn", load_ncnn),
    Engine("mnn", "MNN", load_mnn),
    Engine("litert", "ai-edge-litert", load_litert),
    Engine("litert_int8", "ai-edge-litert", partial(load_litert, int8=True), "int8"),
)

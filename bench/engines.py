"""Who runs the networks: `ENGINES`, one row each. Each engine gets its own best settings.

All but Sparrow and ONNX Runtime are optional: what is not installed refuses. ncnn and MNN take the
ONNX file through their own converters (pnnx, mnnconvert); LiteRT takes the file a network came
from.
"""

import subprocess
import sysconfig
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
from onnxruntime.quantization import QuantType

import accuracy
from models import Feeds
from nets.build import Array

Outputs = dict[str, Array]
Run = Callable[[Feeds], Outputs]

# Largest difference allowed from the baseline, as a share of the reference's largest magnitude.
# float32: five times the worst seen (1.9e-5, detector_n) between ONNX Runtime with and without
# optimisation and OpenVINO, over all cases. bfloat16: the end-to-end gate of a build. int8: random
# weights calibrated on four inputs; real accuracy is measured by accuracy.py.
TOLERANCE = {"float32": 1e-4, "bfloat16": 0.0625, "int8": 0.5}


class RefusedError(Exception):
    """The engine cannot take this network; the text says why."""


@dataclass(frozen=True, slots=True)
class Network:
    """A network as engines may take it: ONNX, some inputs, and the TFLite file it came from."""

    model: onnx.ModelProto
    inputs: Sequence[Feeds]
    tflite: Path | None = None


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
        if precision == "int8":
            model = sparrow.quantize(model, network.inputs)
            bundle = sparrow.build(model, target="host", threads=threads)
        else:
            bundle = sparrow.build(model, target="host", precision=precision, threads=threads)
    except SparrowError as error:
        raise RefusedError(str(error)) from error
    return lambda feeds: bundle.run(dict(feeds))


def load_onnxruntime(network: Network, threads: int, *, int8: bool = False) -> Run:
    """All optimisations, spinning workers, sequential graph: its fastest settings at batch 1."""
    model = unsigned_by_signed(network) if int8 else network.model
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
    options.add_session_config_entry("session.intra_op.allow_spinning", "1")
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
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
    model = unsigned_by_signed(network) if int8 else network.model
    try:
        read = core.read_model(model.SerializeToString())
        request = core.compile_model(read, "CPU", config).create_infer_request()
    except RuntimeError as error:
        raise RefusedError(" ".join(str(error).split())) from error
    names = [output.name for output in model.graph.output]

    def run(feeds: Feeds) -> Outputs:
        results = request.infer(dict(feeds), share_inputs=True)
        return {name: np.array(results[name]) for name in names}

    return run


def unsigned_by_signed(network: Network) -> onnx.ModelProto:
    """ONNX Runtime's own static quantization, unsigned activations: what it multiplies fastest."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "float.onnx"
        onnx.save(network.model, path)
        types = {"activation_type": QuantType.QUInt8, "weight_type": QuantType.QInt8}
        calib = [dict(f) for f in network.inputs]
        try:
            return accuracy.onnxruntime(per_channel=True, **types)(path, calib)
        except Exception as error:  # its quantizer raises what it likes
            raise RefusedError(f"its quantizer: {error}") from error


def _converted(command: Sequence[str], folder: str, made: str) -> Path:
    """What a converter of the virtual environment makes of `model.onnx` in a folder."""
    tool = Path(sysconfig.get_path("scripts")) / command[0]
    if not tool.exists():
        raise RefusedError(f"{command[0]} is not installed")
    done = subprocess.run(
        [str(tool), *command[1:]], cwd=folder, capture_output=True, text=True, check=False
    )
    if done.returncode or not (Path(folder) / made).exists():
        last = (done.stdout + done.stderr).strip().splitlines()[-1:]
        raise RefusedError(f"{command[0]}: {' '.join(last)}")
    return Path(folder) / made


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
        param = _converted(command, folder, "model.ncnn.param")
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
        path = _converted([*command, "model.mnn", "--bizCode", "bench"], folder, "model.mnn")
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


def load_litert(network: Network, threads: int) -> Run:
    """XNNPACK, its default delegate, on the TFLite file itself."""
    litert = _module("ai_edge_litert.interpreter")
    if network.tflite is None:
        raise RefusedError("LiteRT reads TFLite files, and its wheel converts no ONNX")
    net = litert.Interpreter(  # type: ignore[attr-defined]
        model_path=str(network.tflite), num_threads=threads
    )
    net.allocate_tensors()
    inputs, outputs = net.get_input_details(), net.get_output_details()
    names = [output.name for output in network.model.graph.output]

    def run(feeds: Feeds) -> Outputs:
        for detail, value in zip(inputs, feeds.values(), strict=True):
            net.set_tensor(detail["index"], value)
        net.invoke()
        return {
            name: net.get_tensor(detail["index"])
            for name, detail in zip(names, outputs, strict=True)
        }

    return run


ENGINES = (
    Engine("sparrow", "sparrow-ai", load_sparrow),
    Engine("sparrow_bf16", "sparrow-ai", partial(load_sparrow, precision="bfloat16"), "bfloat16"),
    Engine("sparrow_int8", "sparrow-ai", partial(load_sparrow, precision="int8"), "int8"),
    Engine("onnxruntime", "onnxruntime", load_onnxruntime),
    Engine("onnxruntime_int8", "onnxruntime", partial(load_onnxruntime, int8=True), "int8"),
    Engine("openvino", "openvino", load_openvino),
    Engine("openvino_bf16", "openvino", partial(load_openvino, hint="bf16"), "bfloat16"),
    Engine("openvino_int8", "openvino", partial(load_openvino, int8=True), "int8"),
    Engine("ncnn", "ncnn", load_ncnn),
    Engine("mnn", "MNN", load_mnn),
    Engine("litert", "ai-edge-litert", load_litert),
)

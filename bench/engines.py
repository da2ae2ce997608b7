"""Who runs the networks: `ENGINES`, one row each. Each engine gets its own best settings."""

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module

import numpy as np
import onnx
import onnxruntime

from models import Feeds
from nets.build import Array

Outputs = dict[str, Array]
Run = Callable[[Feeds], Outputs]


class RefusedError(Exception):
    """The engine cannot take this network; the text says why."""


@dataclass(frozen=True, slots=True)
class Engine:
    """`load(model, threads)` returns the call that is timed, or raises RefusedError."""

    name: str
    package: str
    load: Callable[[onnx.ModelProto, int], Run]

    def version(self) -> str:
        return str(import_module(self.package).__version__)


def load_sparrow(model: onnx.ModelProto, threads: int) -> Run:
    import sparrow
    from sparrow.errors import SparrowError

    try:
        bundle = sparrow.build(model, target="host", precision="float32", threads=threads)
    except SparrowError as error:
        raise RefusedError(str(error)) from error
    return lambda feeds: bundle.run(dict(feeds))


def load_onnxruntime(model: onnx.ModelProto, threads: int) -> Run:
    """All optimisations, spinning workers, sequential graph: its fastest settings at batch 1."""
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


def load_openvino(model: onnx.ModelProto, threads: int) -> Run:
    """Latency hint, one stream, float32 (the plugin would choose bfloat16 where the CPU has it)."""
    import openvino

    core = openvino.Core()
    config = {
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_NUM_THREADS": threads,
        "NUM_STREAMS": 1,
        "INFERENCE_PRECISION_HINT": "f32",
    }
    try:
        network = core.read_model(model.SerializeToString())
        request = core.compile_model(network, "CPU", config).create_infer_request()
    except RuntimeError as error:
        raise RefusedError(" ".join(str(error).split())) from error
    names = [output.name for output in model.graph.output]

    def run(feeds: Feeds) -> Outputs:
        results = request.infer(dict(feeds), share_inputs=True)
        return {name: np.array(results[name]) for name in names}

    return run


ENGINES = (
    Engine("sparrow", "sparrow", load_sparrow),
    Engine("onnxruntime", "onnxruntime", load_onnxruntime),
    Engine("openvino", "openvino", load_openvino),
)

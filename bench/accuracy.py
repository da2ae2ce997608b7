"""Accuracy of int8: this quantizer beside ONNX Runtime's static one and NNCF, on the same samples.

    python bench/accuracy.py [--tasks RFB-320,DS-CNN] [--quantizers sparrow,onnxruntime,nncf]
    python bench/accuracy.py --fidelity --quantizers neighbours     # algorithms beside each other

All get the same float model (as exported by Sparrow, so that all can read it) and the same
calibration samples; all results run in ONNX Runtime without graph optimization, so that only the
scales differ. Printed: the mean score of each, and the paired difference to the float model with a
bootstrap 95 % interval over samples; then the same against each other quantizer. NNCF is left out
where it is not installed (``pip install nncf``).
"""

import argparse
import importlib.util
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import onnx
import onnxruntime as ort

from accuracy_tasks import Feeds, Predict, Task, fidelity, mean, paired, tasks
from sparrow.importers.model import import_model
from sparrow.passes import FRONT, optimize
from sparrow.portable import to_portable_onnx
from sparrow.quant import Recipe, run
from sparrow.quantizing import qdq_file
from sparrow.tensor import Array

Quantizer = Callable[[Path, Sequence[Feeds]], onnx.ModelProto]


def predictor(model: onnx.ModelProto) -> Predict:
    options = ort.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 3
    session = ort.InferenceSession(model.SerializeToString(), options)
    names = [o.name for o in session.get_outputs()]

    def predict(feeds: Feeds) -> Mapping[str, Array]:
        return dict(zip(names, session.run(names, feeds), strict=True))

    return predict


def float_model(path: Path) -> onnx.ModelProto:
    return to_portable_onnx(optimize(import_model(path).graph, FRONT))


def sparrow(**fields: object) -> Quantizer:
    def quantized(path: Path, calib: Sequence[Feeds]) -> onnx.ModelProto:
        g = optimize(import_model(path).graph, FRONT)
        recipe = Recipe(**fields)  # type: ignore[arg-type]
        return qdq_file(run(g, calib, recipe))

    return quantized


def onnxruntime(**options: object) -> Quantizer:
    """ONNX Runtime's static quantizer after its own preprocessing."""
    from onnxruntime import quantization as q
    from onnxruntime.quantization.shape_inference import quant_pre_process

    class Reader(q.CalibrationDataReader):  # type: ignore[misc]
        def __init__(self, feeds: Sequence[Feeds]) -> None:
            self.left: Iterator[Feeds] = iter(feeds)

        def get_next(self) -> Feeds | None:
            return next(self.left, None)

    def run(path: Path, calib: Sequence[Feeds]) -> onnx.ModelProto:
        with tempfile.TemporaryDirectory() as folder:
            source, ready, out = (Path(folder) / f"{n}.onnx" for n in ("float", "ready", "int8"))
            onnx.save(float_model(path), source)
            quant_pre_process(str(source), str(ready), skip_symbolic_shape=True)
            q.quantize_static(
                str(ready),
                str(out),
                Reader(calib),
                **({"quant_format": q.QuantFormat.QDQ} | options),
            )
            return onnx.load(out)

    return run


def nncf(preset: str = "performance", **advanced: object) -> Quantizer:
    """NNCF's post-training quantization: preset "performance" (its default) or "mixed"."""

    def run(path: Path, calib: Sequence[Feeds]) -> onnx.ModelProto:
        import nncf as library

        found: onnx.ModelProto = library.quantize(
            float_model(path),
            library.Dataset(list(calib)),
            preset=library.QuantizationPreset(preset),
            subset_size=len(calib),
            advanced_parameters=library.AdvancedQuantizationParameters(**advanced),
        )
        return found

    return run


# Recipes that differ in one algorithm; no value takes 16 bits to make up for what one loses.
NEIGHBOURS: Mapping[str, Mapping[str, object]] = {
    "mse": {},
    **{name: {"ranges": name} for name in ("minmax", "percentile", "entropy", "aciq", "octav")},
    "no-correction": {"bias_correction": False},
    "per-tensor": {"weights": "per_tensor"},
    "seven-bits": {"weight_bits": 7},
    "minmax-equalize": {"ranges": "minmax", "equalize": True},
    "per-tensor-equalize": {"weights": "per_tensor", "equalize": True},
    "nearest": {"rounding": "nearest"},
    "nearest-no-correction": {"rounding": "nearest", "bias_correction": False},
    "adaround": {"rounding": "adaround"},
    "smooth": {"smooth": 0.5},
    "groups": {"weights": "per_group"},
}
QUANTIZERS: Mapping[str, Quantizer] = {
    "sparrow": sparrow(),
    "onnxruntime": onnxruntime(per_channel=True),
    "onnxruntime-defaults": onnxruntime(),
    "nncf": nncf(),
    "nncf-mixed": nncf("mixed"),
    "nncf-no-correction": nncf(disable_bias_correction=True),
    **{name: sparrow(widen=False, **fields) for name, fields in NEIGHBOURS.items()},
    "symmetric": sparrow(symmetric=True),
    "int16x8": sparrow(precision="int16x8"),
}


def scores(task: Task, names: Sequence[str], decibels: bool) -> dict[str, list[float]]:
    """Scores of the float model and of every quantizer, over all folds."""
    found: dict[str, list[float]] = {"float": []}
    real = predictor(float_model(task.model))
    for fold in task.folds():
        score = fidelity(fold.held) if decibels else fold.score
        found["float"] += score(real, real)
        for name in names:
            start = time.perf_counter()
            try:
                model = QUANTIZERS[name](task.model, fold.calib)
                found.setdefault(name, []).extend(score(real, predictor(model)))
            except Exception as e:  # other people's quantizers raise anything; the row says so
                print(f"  {name}: {type(e).__name__}: {str(e).splitlines()[0][:120]}")
                found[name] = []
                continue
            print(f"  {name}: {time.perf_counter() - start:.1f} s", flush=True)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tasks", default=",".join(t.name for t in tasks()))
    parser.add_argument("--quantizers", default="sparrow,onnxruntime,nncf,nncf-mixed")
    parser.add_argument(
        "--fidelity", action="store_true", help="score every task in dB to the float outputs"
    )
    args = parser.parse_args()
    asked = args.quantizers.replace("neighbours", ",".join(NEIGHBOURS))
    names = asked.split(",")
    if importlib.util.find_spec("nncf") is None:
        print("nncf is not installed: left out")
        names = [n for n in names if not n.startswith("nncf")]
    for task in tasks():
        if task.name not in args.tasks.split(","):
            continue
        found = scores(task, names, args.fidelity)
        real = found["float"]
        unit = "dB" if args.fidelity else task.unit
        print(f"{task.name}: float {mean(real):.2f} {unit}, {len(real)} samples")
        for name in names:
            if len(found[name]) != len(real):
                print(f"  {name:22} failed")
                continue
            text = f"  {name:22} {mean(found[name]):7.2f}"
            if unit != "dB":
                d, low, high = paired(found[name], real)
                text += f"  to float {d:+.2f} [{low:+.2f}, {high:+.2f}]"
            if name != names[0] and len(found[names[0]]) == len(real):
                d, low, high = paired(found[names[0]], found[name])
                text += f"  {names[0]} is {d:+.2f} [{low:+.2f}, {high:+.2f}]"
            print(text, flush=True)


if __name__ == "__main__":
    main()

"""Speed in ONNX Runtime of the QDQ files of `sparrow quantize` and of its own static quantizer.

    python bench/qdq_speed.py [--tasks RFB-320,ResNet-8] [--rounds 20]

One thread, all graph optimizations, interleaved; the ratio to the float model is taken within each
round, with a bootstrap 95 % interval of its median.
"""

import argparse
from collections.abc import Callable

import numpy as np
import onnx
import onnxruntime as ort

from accuracy import QUANTIZERS, float_model
from accuracy_tasks import tasks
from sparrow.timing.measure import Feeds, Outputs, comparison, interval, measure


def session(model: onnx.ModelProto) -> Callable[[Feeds], Outputs]:
    options = ort.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 3
    s = ort.InferenceSession(model.SerializeToString(), options)
    names = [o.name for o in s.get_outputs()]
    return lambda feeds: dict(zip(names, s.run(names, dict(feeds)), strict=True))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tasks", default="RFB-320,slim-320,DS-CNN,ResNet-8,FastestDet")
    parser.add_argument("--rounds", type=int, default=20)
    args = parser.parse_args()
    for task in tasks():
        if task.name not in args.tasks.split(","):
            continue
        fold = task.folds()[0]
        models = {name: QUANTIZERS[name](task.model, fold.calib) for name in NAMES}
        runs = {"float": session(float_model(task.model))}
        runs |= {name: session(m) for name, m in models.items()}
        found = measure(runs, fold.held[:8], args.rounds, 40)
        print(f"{task.name}: float {np.median(found['float'].ns) / 1e6:.3f} ms")
        for name in NAMES:
            ratio = found["float"].ns / found[name].ns
            low, high = interval(ratio)
            text = comparison(float(np.median(ratio)), low, high, 1, found[name].others)
            print(f"  {name:22} {np.median(found[name].ns) / 1e6:.3f} ms  {text}", flush=True)


NAMES = ("sparrow", "onnxruntime", "onnxruntime-defaults")

if __name__ == "__main__":
    main()

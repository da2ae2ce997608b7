"""Products with constant weights as emitted code, against the peak of their arithmetic.

    python bench/products.py [--rounds 5] [--realtime]

One network of one product for each size and precision; the time is that of its step, by the
profile hooks, so that no call from Python counts. One thread; medians, of shares those of rounds,
each of which measures the peak as well: clocks fall where vectors are multiplied for long.
"""

import argparse
from contextlib import nullcontext
from statistics import median

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

import sparrow
from peak import best_of, peak
from run import core_to_itself

SIZES = ((64, 64, 64), (256, 256, 256), (512, 512, 512), (1024, 1024, 1024), (128, 1024, 256))


def network(m: int, k: int, n: int) -> onnx.ModelProto:
    rng = np.random.default_rng(0)
    w = (rng.standard_normal((k, n)) / np.sqrt(k)).astype(np.float32)
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["y"])],
        "product",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, (m, k))],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, (m, n))],
        [numpy_helper.from_array(w, "w")],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def bundle(m: int, k: int, n: int, precision: str) -> sparrow.Bundle:
    model = network(m, k, n)
    if precision == "int8":
        rng = np.random.default_rng(1)
        calib = [{"x": rng.standard_normal((m, k)).astype(np.float32)} for _ in range(4)]
        return sparrow.build(sparrow.quantize(model, calib))
    return sparrow.build(model, precision=precision)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--realtime", action="store_true", help="see run.py")
    args = parser.parse_args()
    for precision in ("float32", "bfloat16", "int8"):
        kinds = {k: peak(k) for k in dict.fromkeys((precision, best_of(precision)))}
        for m, k, n in SIZES:
            built = bundle(m, k, n, precision)
            times: list[float] = []
            tops: dict[str, list[float]] = {k: [] for k in kinds}
            with core_to_itself() if args.realtime else nullcontext():
                for _ in range(args.rounds):
                    times.append(max(s.ns for s in built.profile().steps if s.gflops))
                    for kind, measured in kinds.items():
                        tops[kind].append(measured())
            rates = [2e9 * m * k * n / t for t in times]
            shares = (
                f"{median(r / t for r, t in zip(rates, top, strict=True)):5.0%} of {kind}'s "
                f"{median(top) / 1e9:.0f}"
                for kind, top in tops.items()
            )
            print(
                f"{precision:9} {m:5} x {k:4} x {n:4} {median(times) / 1e3:9.2f} us "
                f"{median(rates) / 1e9:6.0f} GOP/s: {', '.join(shares)}",
                flush=True,
            )


if __name__ == "__main__":
    main()

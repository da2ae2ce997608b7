"""Quantized TFLite files: ours beside LiteRT on the very file, and others on what it holds.

    python bench/tflite.py [--threads 1] [--rounds 20] [--realtime] [kws_dscnn_int8.tflite ...]

Without names: every such file that has stored inputs. ONNX Runtime runs what we export of it in
QDQ form, OpenVINO reads the file itself. Interleaved in one process, medians with bootstrap 95 %
intervals of the ratio within each round. A call takes codes and gives codes: LiteRT's is
`set_tensor`, `invoke` and `get_tensor`. `steps` is how far an engine's codes are from LiteRT's.
"""

import argparse
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from pathlib import Path

import numpy as np

import sparrow
from cases import Case, data_folder, tflite_cases
from engines import Outputs, Run
from models import Feeds
from network import RefusedError
from run import core_to_itself
from sparrow.errors import SparrowError
from sparrow.importers.model import import_model
from sparrow.ort import first_line, open_session, refusals
from sparrow.portable import to_portable_onnx
from sparrow.timing.measure import comparison, interval, measure


def ours(path: Path, threads: int) -> Run:
    try:
        bundle = sparrow.build(path, threads=threads)
    except SparrowError as error:
        raise RefusedError(str(error)) from error
    return lambda feeds: bundle.run(dict(feeds))


def litert(path: Path, threads: int) -> Run:
    """XNNPACK, its default delegate."""
    from ai_edge_litert.interpreter import Interpreter

    net = Interpreter(model_path=str(path), num_threads=threads)
    try:
        net.allocate_tensors()
    except (RuntimeError, ValueError) as error:
        raise RefusedError(first_line(error)) from error
    (place,), results = net.get_input_details(), net.get_output_details()

    def run(feeds: Feeds) -> Outputs:
        net.set_tensor(place["index"], *feeds.values())
        net.invoke()
        return {r["name"]: net.get_tensor(r["index"]) for r in results}

    return run


def ort(path: Path, threads: int) -> Run:
    model = to_portable_onnx(import_model(path).graph).SerializeToString()
    try:
        session = open_session(model, optimized=True, threads=threads)
    except refusals() as error:
        raise RefusedError(first_line(error)) from error
    if len(session.get_inputs()) > 1:
        raise RefusedError("its states are inputs there")
    names = [output.name for output in session.get_outputs()]
    return lambda feeds: dict(zip(names, session.run(names, dict(feeds)), strict=True))


def openvino(path: Path, threads: int) -> Run:
    import openvino as ov

    core = ov.Core()
    settings = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_NUM_THREADS": threads}
    try:
        request = core.compile_model(str(path), "CPU", settings).create_infer_request()
    except RuntimeError as error:
        raise RefusedError(first_line(error)) from error

    def run(feeds: Feeds) -> Outputs:
        found = request.infer(list(feeds.values()))
        return {str(i): np.array(value) for i, value in enumerate(found.values())}

    return run


WIDTH = 40
ENGINES: dict[str, Callable[[Path, int], Run]] = {
    "sparrow": ours,
    "litert": litert,
    "onnxruntime": ort,
    "openvino": openvino,
}


def admitted(case: Case, threads: int) -> Iterator[tuple[str, Run]]:
    """The engines that take the file; of the others it is said why they do not."""
    assert case.tflite is not None
    for name, load in ENGINES.items():
        try:
            yield name, load(case.tflite, threads)
        except (RefusedError, ImportError) as error:
            print(f"{case.name:{WIDTH}} {name:12} refused it: {first_line(error)}", flush=True)


def steps(got: Outputs, want: Outputs) -> int:
    """The largest difference of two codes of the first output."""
    a, b = (next(iter(outputs.values())).astype(np.int64).ravel() for outputs in (got, want))
    return int(np.abs(a - b).max()) if a.shape == b.shape else -1


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--block-ms", type=float, default=20)
    parser.add_argument("--realtime", action="store_true", help="see run.py")
    args = parser.parse_args()
    known = {case.name: case for case in tflite_cases(data_folder(), coded=True)}
    if unknown := set(args.names) - known.keys():
        parser.error(f"no file {', '.join(sorted(unknown))}; there are {', '.join(known)}")
    best: list[float] = []
    for case in (known[name] for name in args.names or known):
        runs, inputs = dict(admitted(case, args.threads)), list(case.inputs())
        with core_to_itself(args.threads) if args.realtime else nullcontext():
            found = measure(runs, inputs, args.rounds, args.block_ms)
        outputs = {name: [run(feeds) for feeds in inputs] for name, run in runs.items()}
        ratios: list[float] = []
        for name, samples in found.items():
            line = f"{case.name:{WIDTH}} {name:12} {np.median(samples.ns) / 1e3:10.1f} us"
            if "litert" in outputs:
                apart = max(map(steps, outputs[name], outputs["litert"]))
                line += f" {apart:3d} steps"
            if name != "sparrow" and "sparrow" in found:
                ratio = samples.ns / found["sparrow"].ns
                ratios.append(float(np.median(ratio)))
                others = max(samples.others, found["sparrow"].others)
                line += (
                    f"  ours is {comparison(ratios[-1], *interval(ratio), args.threads, others)}"
                )
            print(line, flush=True)
        if ratios:
            best.append(min(ratios))
    if best:
        mean = float(np.exp(np.mean(np.log(best))))
        print(
            f"{mean:.2f}x the best of the others over {len(best)} files, {min(best):.2f}x at worst"
        )


if __name__ == "__main__":
    main()

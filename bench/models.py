"""The benchmark's networks: `MODELS`, one row each, and a command that writes and checks them.

python bench/models.py --out DIR [names ...]
"""

import argparse
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import onnxruntime

from nets import sequence, vision
from nets.build import Array, flops, parameters, shapes

Feeds = Mapping[str, Array]


@dataclass(frozen=True, slots=True)
class Model:
    """`flops` counts two per multiply-accumulate; `feeds` draws one set of inputs."""

    name: str
    build: Callable[[], onnx.ModelProto]
    feeds: Callable[[np.random.Generator], Feeds]
    flops: int


def normal(name: str, *shape: int) -> Callable[[np.random.Generator], Feeds]:
    """One float32 input of standard normal numbers."""
    return lambda rng: {name: rng.standard_normal(shape, np.float32)}


def sentence_pair(rng: np.random.Generator) -> Feeds:
    """Token ids of a sentence pair of random length, padded to 128."""
    length = int(rng.integers(64, sequence.TOKENS + 1))
    place = np.arange(sequence.TOKENS)[None]
    ids = rng.integers(1000, sequence.VOCABULARY, place.shape)
    return {
        "input_ids": np.where(place < length, ids, 0),
        "attention_mask": (place < length).astype(np.int64),
        "token_type_ids": ((place >= length // 2) & (place < length)).astype(np.int64),
    }


def history(rng: np.random.Generator) -> Feeds:
    """What somebody saw, rated from 1 to 5 (as shares of it), and its genres; padded with id 0."""
    items, tags = int(rng.integers(3, sequence.HISTORY + 1)), int(rng.integers(4, 24))
    movies = np.zeros((1, sequence.HISTORY), np.int64)
    ratings = np.zeros((1, sequence.HISTORY), np.float32)
    genres = np.zeros((1, sequence.TAGS), np.int64)
    movies[0, :items] = rng.integers(1, sequence.ITEMS, items)
    ratings[0, :items] = rng.integers(1, 6, items) / 5
    genres[0, :tags] = rng.integers(1, sequence.GENRES, tags)
    return {"movie_ids": movies, "ratings": ratings, "genre_ids": genres}


PHOTO = normal("input", 1, 3, 224, 224)

MODELS = (
    Model("mobilenet_v1", vision.mobilenet_v1, PHOTO, 1_137_482_752),
    Model("mobilenet_v2", vision.mobilenet_v2, PHOTO, 601_548_544),
    Model("mobilenet_v3_small", vision.mobilenet_v3_small, PHOTO, 113_020_800),
    Model("efficientnet_lite0", vision.efficientnet_lite0, PHOTO, 770_375_104),
    Model("squeezenet1_1", vision.squeezenet, PHOTO, 698_303_872),
    Model("shufflenet_v2", vision.shufflenet_v2, PHOTO, 289_815_984),
    Model("resnet18", vision.resnet18, PHOTO, 3_628_146_688),
    Model("resnet50", vision.resnet50, PHOTO, 8_178_368_512),
    Model("resnet8", vision.resnet8, normal("input", 1, 3, 32, 32), 25_003_264),
    Model("unet", vision.unet, normal("input", 1, 3, 128, 128), 1_159_725_056),
    Model("detector_n", vision.detector, normal("images", 1, 3, 320, 320), 1_117_030_400),
    Model("vit_tiny", sequence.vit_tiny, normal("pixels", 1, 3, 224, 224), 2_507_366_400),
    Model("bert_mini_opset11", sequence.bert_mini_opset11, sentence_pair, 872_547_328),
    Model("bert_mini_opset17", sequence.bert_mini_opset17, sentence_pair, 872_547_328),
    Model("mobilebert", sequence.mobilebert, sentence_pair, 5_385_488_384),
    Model("recommender", sequence.recommender, history, 316_992),
    Model("ds_cnn", sequence.ds_cnn, normal("mfcc", 1, 1, 49, 10), 5_313_536),
    Model("autoencoder", sequence.autoencoder, normal("frames", 1, 640), 528_384),
    Model("lstm", sequence.lstm, normal("frames", 100, 1, 40), 17_206_272),
    Model("gru", sequence.gru, normal("frames", 100, 1, 40), 12_905_472),
)


def check(row: Model, model: onnx.ModelProto) -> str:
    """One table line with each output's spread in ONNX Runtime.

    Raises:
        ValueError: an output is not finite or degenerate, or the row's FLOP count is wrong.
    """
    if (counted := flops(model)) != row.flops:
        raise ValueError(f"{row.name}: the row says {row.flops} FLOP, the graph has {counted}")
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    names = [o.name for o in session.get_outputs()]
    outputs = session.run(names, dict(row.feeds(np.random.default_rng(0))))
    spreads = []
    for name, value in zip(names, outputs, strict=True):
        spread = float(value.std())
        most = 1e3 if value.dtype == np.float32 else np.inf  # indices go up to what they index
        if not np.isfinite(value).all() or not 1e-4 < spread < most:
            raise ValueError(f"{row.name}: output {name} has standard deviation {spread}")
        spreads.append(f"{name}{list(shapes(model)[name])} std {spread:.3g}")
    return (
        f"{row.name:20s} {len(model.graph.node):4d} nodes {parameters(model) / 1e6:7.3f} M params "
        f"{row.flops / 1e6:8.1f} MFLOP  {', '.join(spreads)}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--out", type=Path, help="write <name>.onnx there; without it only check")
    parser.add_argument("names", nargs="*", help="default: all", metavar="name")
    options = parser.parse_args()
    known = {row.name: row for row in MODELS}
    if unknown := set(options.names) - set(known):
        parser.error(f"no model {', '.join(sorted(unknown))}; there are {', '.join(known)}")
    for name in options.names or known:
        model = known[name].build()
        print(check(known[name], model), flush=True)
        if options.out:
            options.out.mkdir(parents=True, exist_ok=True)
            onnx.save(model, options.out / f"{name}.onnx")


if __name__ == "__main__":
    main()

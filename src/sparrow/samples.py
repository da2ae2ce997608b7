"""Sample inputs: from arrays, ``.npy`` and ``.npz`` files and images, or drawn from a seed."""

from __future__ import annotations

import io
import os
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from sparrow.errors import BadInput
from sparrow.graph import Graph
from sparrow.importers.file import read_file
from sparrow.npz import read_arrays
from sparrow.tensor import Array, TensorType, round_bfloat16

IMAGES = (".jpg", ".jpeg", ".png", ".bmp", ".gif", ".webp", ".ppm", ".pgm")
FORMATS = ("JPEG", "PNG", "BMP", "GIF", "WEBP", "PPM")
# A file may claim this many pixels, or as many as the most compressed of photos.
HARMLESS_PIXELS = 1 << 21
PIXELS_PER_BYTE = 1000
Feeds = dict[str, Array]


@dataclass(frozen=True, slots=True)
class Pixels:
    """How pixels 0..255 become numbers: (pixel - mean) / std, per channel or one for all.

    The default gives [0, 1]. Integer inputs take pixels as they are.

    Attributes:
        mean: Subtracted first; one value, or one per channel in the order the model sees.
        std: Divided by next.
        bgr: Whether the model wants blue first.
    """

    mean: tuple[float, ...] = (0.0,)
    std: tuple[float, ...] = (255.0,)
    bgr: bool = False

    def __post_init__(self) -> None:
        finite = all(np.isfinite(v) for v in (*self.mean, *self.std))
        if not self.mean or not self.std or not finite or 0 in self.std:
            raise BadInput(f"pixels with mean {self.mean} and std {self.std}: expected numbers")


PLAIN = Pixels()


def fit(x: Any, name: str, t: TensorType) -> Array:
    """An array as input ``name``: dtype converted where nothing is lost in kind, batch axis added.

    Raises:
        BadInput: The shape does not fit, floats are given for integers, or a number is too large.
    """
    a = np.asarray(x)
    if a.shape != t.shape and a.shape == t.shape[1:] and t.shape[:1] == (1,):
        a = a[None]
    if a.shape != t.shape or a.dtype.kind not in "fiub":
        stacked = a.ndim > 0 and t.shape in (a.shape[1:], (1, *a.shape[1:]))
        hint = f"there are {len(a)} samples: give one of them" if stacked else ""
        raise BadInput(f"input {name!r}: expected {t}, got {a.dtype}{list(a.shape)}", hint=hint)
    if t.dtype.kind in ("int", "uint") and a.dtype.kind == "f":
        raise BadInput(f"input {name!r}: expected {t}, got {a.dtype}{list(a.shape)}")
    if t.dtype.kind in ("int", "uint") and a.size and a.dtype != t.dtype.numpy:
        low, high = t.dtype.limits
        if int(a.min()) < low or int(a.max()) > high:
            raise BadInput(f"input {name!r}: values {a.min()}..{a.max()} do not fit {t.dtype}")
    with np.errstate(over="ignore"):
        b = np.asarray(a, dtype=t.dtype.numpy, order="C")
    if b.dtype.kind == "f" and b.dtype != a.dtype and not np.array_equal(np.isinf(a), np.isinf(b)):
        raise BadInput(f"input {name!r}: values {a.min()}..{a.max()} do not fit {t.dtype}")
    return round_bfloat16(b) if t.dtype.name == "bfloat16" else b


def load_image(path: Path, name: str, t: TensorType, pixels: Pixels = PLAIN) -> Array:
    """An image resized (bilinear) to an input [1, C, H, W] or [1, H, W, C] with C 1 or 3.

    Floats are what ``pixels`` says, uint8 is 0..255, int8 the pixel - 128.

    Raises:
        BadInput: The file is no image, or the input has no image shape.
    """
    from PIL import Image

    shape = t.shape[-3:]
    if (
        t.rank not in (3, 4)
        or (t.rank == 4 and t.shape[0] != 1)
        or not {shape[0], shape[2]} & {1, 3}
    ):
        raise BadInput(f"input {name!r} is {t}: no image fits it", hint="give a .npy file instead")
    first = shape[0] in (1, 3)
    c, h, w = shape if first else (shape[2], shape[0], shape[1])
    data = read_file(path)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(io.BytesIO(data), formats=FORMATS) as picture:
                claimed = picture.width * picture.height
                if claimed > max(HARMLESS_PIXELS, PIXELS_PER_BYTE * len(data)):
                    raise ValueError(f"{len(data)} bytes claim {claimed} pixels")
                small = picture.convert("L" if c == 1 else "RGB").resize(
                    (w, h), Image.Resampling.BILINEAR
                )
    except Exception as e:  # readers of Pillow raise whatever their parsing runs into
        raise BadInput(f"{path}: no readable image: {e}") from None
    x = np.asarray(small).reshape(h, w, c)
    x = x[:, :, ::-1] if pixels.bgr else x
    if t.dtype.kind == "float":
        if {len(pixels.mean), len(pixels.std)} - {1, c}:
            raise BadInput(f"input {name!r} has {c} channels, the pixels' mean and std have others")
        mean, std = (np.array(v, np.float32) for v in (pixels.mean, pixels.std))
        x = (x.astype(np.float32) - mean) / std
    x = x.transpose(2, 0, 1) if first else x
    if t.dtype.name == "int8":
        x = (x.astype(np.int16) - 128).astype(np.int8)
    return fit(x.reshape(t.shape), name, t)


def _split(
    arrays: Mapping[str, Array], types: Mapping[str, TensorType], where: str
) -> Iterator[Feeds]:
    """Samples of stacked arrays: each array is one sample, or has the samples along axis 0."""
    if set(arrays) == {""} and len(types) == 1:
        arrays = {next(iter(types)): arrays[""]}
    missing = [n for n in types if n not in arrays]
    if missing:
        raise BadInput(
            f"{where}: no array for input {missing[0]!r}",
            hint=f"it holds {', '.join(arrays) or 'nothing'}",
        )
    columns: dict[str, list[Array]] = {}
    for n, t in types.items():
        a = arrays[n]
        if a.shape == t.shape:
            columns[n] = [a]
        elif a.shape[1:] == t.shape or (t.shape[:1] == (1,) and a.shape[1:] == t.shape[1:]):
            columns[n] = list(a)
        else:
            raise BadInput(
                f"{where}: {n!r} is {a.dtype}{list(a.shape)}, expected samples of {t}",
                hint=f"one of them, or N along an axis before these: {['N', *t.shape]}",
            )
    counts = {n: len(c) for n, c in columns.items()}
    if len(set(counts.values()) - {1}) > 1:
        found = ", ".join(f"{k} of {n!r}" for n, k in counts.items())
        raise BadInput(f"{where}: expected as many samples of each input, got {found}")
    # one sample serves beside many, and beside none
    count = min(counts.values(), default=0) and max(counts.values())
    for i in range(count):
        yield {n: fit(c[i if len(c) > 1 else 0], n, types[n]) for n, c in columns.items()}


def _from_path(path: Path, types: Mapping[str, TensorType], pixels: Pixels) -> Iterator[Feeds]:
    if os.path.isdir(path):
        if len(types) != 1:
            raise BadInput(f"{path}: an image folder feeds one input, the model has {len(types)}")
        ((name, t),) = types.items()
        try:
            files = sorted(p for p in path.iterdir() if p.suffix.lower() in IMAGES)
        except OSError as e:
            raise BadInput(f"{path}: cannot be read: {e.strerror}") from None
        if not files:
            raise BadInput(f"{path}: no images in this folder")
        for p in files:
            yield {name: load_image(p, name, t, pixels)}
    elif path.suffix.lower() in IMAGES and len(types) == 1:
        ((name, t),) = types.items()
        yield {name: load_image(path, name, t, pixels)}
    else:
        yield from _split(read_arrays(path), types, str(path))


def samples(
    source: Any, types: Mapping[str, TensorType], pixels: Pixels = PLAIN
) -> Iterator[Feeds]:
    """Feeds for the inputs ``types``, one after the other.

    Args:
        source: Path of a ``.npz``, ``.npy``, image or image folder; or an iterable of arrays, of
            dicts by input name, or of tuples in input order.
        types: Type of every input.
        pixels: How images become numbers.

    Raises:
        BadInput: A sample does not fit the inputs.
    """
    if isinstance(source, (str, Path)):
        yield from _from_path(Path(source), types, pixels)
        return
    if isinstance(source, np.ndarray) and len(types) == 1:
        yield from _split({"": source}, types, "calibration data")
        return
    if isinstance(source, Mapping):
        plain = {str(k): np.asarray(v) for k, v in source.items()}
        yield from _split(plain, types, "calibration data")
        return
    if not isinstance(source, Iterable):
        raise BadInput(f"samples are an iterable or a path, got {type(source).__name__}")
    for item in source:
        if isinstance(item, Mapping):
            found: dict[str, Any] = {str(k): v for k, v in item.items()}
        elif isinstance(item, tuple):
            if len(item) != len(types):
                raise BadInput(f"a sample has {len(item)} arrays, the model {len(types)} inputs")
            found = dict(zip(types, item, strict=True))
        elif len(types) == 1:
            found = {next(iter(types)): item}
        else:
            raise BadInput(f"a sample is one array, the model has {len(types)} inputs")
        wrong = sorted(set(found) ^ set(types))
        if wrong:
            raise BadInput(f"a sample has {sorted(found)}, the model takes {list(types)}")
        yield {n: fit(found[n], n, t) for n, t in types.items()}


def by_entry(source: Any, entries: Sequence[str]) -> Mapping[str, Any] | None:
    """The samples of each entry point, where ``source`` says so: a mapping from names of several
    entry points. None where it is samples itself.
    """
    if len(entries) > 1 and isinstance(source, Mapping) and set(source) <= set(entries):
        return source
    return None


def _index_limit(g: Graph) -> int:
    """Extent of the shortest axis that an index known only at run time picks from; 128 at most."""
    limit = 128
    for n in g.nodes:
        if not type(n.op).__name__.startswith(("Gather", "Scatter")) or n.inputs[1] in g.consts:
            continue
        shape = g.types[n.inputs[0]].shape
        axis = getattr(n.op, "axis", None)
        limit = min(limit, min(shape, default=1) if axis is None else shape[axis])
    return max(limit, 1)


def draw(g: Graph, seed: Sequence[int]) -> Feeds:
    """One random call: floats in [-1, 1), booleans even, indices within every table of the graph.

    8-bit integers of graphs without run-time indices take their whole range, as pixels do.
    """
    limit = _index_limit(g)
    feeds: Feeds = {}
    for i, name in enumerate(g.inputs):
        t = g.types[name]
        rng = np.random.default_rng([*seed, i])
        if t.dtype.kind == "float":
            x = rng.random(t.shape, np.float32) * np.float32(2) - np.float32(1)
            feeds[name] = fit(x, name, t)
        elif t.dtype.kind == "bool":
            feeds[name] = rng.random(t.shape) < 0.5
        else:
            low, high = t.dtype.limits
            if t.dtype.bits == 8 and limit == 128:
                feeds[name] = rng.integers(low, high + 1, t.shape).astype(t.dtype.numpy)
            else:
                feeds[name] = rng.integers(0, min(limit, high + 1), t.shape).astype(t.dtype.numpy)
    return feeds


__all__ = ["IMAGES", "PLAIN", "Feeds", "Pixels", "by_entry", "draw", "fit", "load_image", "samples"]

"""`sparrow run`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sparrow.arguments import pixels_of
from sparrow.cli.options import (
    BgrOption,
    DeviceOption,
    EntryOption,
    FolderArgument,
    JsonOption,
    MeanOption,
    StdOption,
    ThreadsOption,
    show,
)
from sparrow.errors import BadInput, printable

if TYPE_CHECKING:
    from sparrow.samples import Pixels
    from sparrow.tensor import Array


def run(
    folder: FolderArgument,
    inputs: Annotated[
        list[str] | None,
        typer.Argument(help="file, or name=file: .npy, .npz (arrays by input name) or an image"),
    ] = None,
    out: Annotated[Path | None, typer.Option("--out", "-o", help=".npz to write")] = None,
    entry: EntryOption = None,
    threads: ThreadsOption = 1,
    device: DeviceOption = "auto",
    mean: MeanOption = "0",
    std: StdOption = "255",
    bgr: BgrOption = False,
    as_json: JsonOption = False,
) -> None:
    """Run a bundle on files."""
    import numpy as np

    from sparrow.api import load_bundle

    bundle = load_bundle(folder, threads, device)
    pixels = pixels_of(mean, std, bgr)
    feeds = _feeds(bundle, bundle.entry_index(entry), inputs or [], pixels)
    outputs = bundle.run(feeds, entry)
    if out is not None:
        _save(out, outputs)
    facts: dict[str, dict[str, Any]] = {}
    for name, y in outputs.items():
        finite = y[np.isfinite(y)] if y.dtype.kind == "f" else y
        facts[name] = {
            "dtype": y.dtype.name,
            "shape": list(y.shape),
            "min": float(finite.min()) if finite.size else None,
            "max": float(finite.max()) if finite.size else None,
            "mean": float(finite.mean()) if finite.size else None,
            "argmax": int(np.argmax(y)) if y.size else None,
        }
    if as_json:
        show(facts)
        return
    for name, f in facts.items():
        shape = "x".join(map(str, f["shape"])) or "scalar"
        row = f"{printable(name)}: {f['dtype']}[{shape}]"
        if f["min"] is not None:
            row += f" min {f['min']:.6g} max {f['max']:.6g} mean {f['mean']:.6g} at {f['argmax']}"
        print(row)


def _feeds(bundle: Any, index: int, texts: list[str], pixels: Pixels) -> dict[str, Array]:
    """Arrays for the inputs of an entry point, from files."""
    from sparrow.npz import read_arrays
    from sparrow.samples import IMAGES, fit, load_image
    from sparrow.tensor import TensorType

    tensors = bundle.session.library.info.entries[index].inputs
    types = {t.name: TensorType(t.shape, t.dtype) for t in tensors}
    found: dict[str, Array] = {}
    for text in texts:
        name, equals, file = text.partition("=")
        named = bool(equals) and name in types
        path = Path(file if named else text)
        if named or len(types) == 1:
            only = name if named else next(iter(types))
            if path.suffix.lower() in IMAGES:
                found[only] = load_image(path, only, types[only], pixels)
                continue
            arrays = read_arrays(path)
            if "" in arrays or (named and len(arrays) == 1):
                found[only] = fit(next(iter(arrays.values())), only, types[only])
                continue
        else:
            arrays = read_arrays(path)
        for key, a in arrays.items():
            if key not in types:
                raise BadInput(
                    f"{path}: array {key!r} is no input", hint=f"inputs: {', '.join(types)}"
                )
            found[key] = fit(a, key, types[key])
    return found


def _save(out: Path, outputs: Mapping[str, Array]) -> None:
    import io
    import zipfile

    import numpy as np

    from sparrow.publish import replace_file

    if out.suffix != ".npz":
        raise BadInput(f"-o {str(out)!r}", hint="outputs are written to a .npz file")
    data = io.BytesIO()
    # numpy.savez takes the names as keywords, and a model may call an output "file"
    with zipfile.ZipFile(data, "w") as z:
        for name, y in outputs.items():
            with z.open(f"{name}.npy", "w", force_zip64=True) as f:
                np.lib.format.write_array(f, y, allow_pickle=False)
    replace_file(out, data.getvalue())

"""What a change does to the emitted code.

    python bench/replay.py [BEFORE] [AFTER]

Emits C for the corpus (the bundled demo, every real model and the smaller random networks) with the
compiler of two git revisions and compares the files: text as a diff, all else byte by byte. BEFORE
is by default HEAD, AFTER the working tree. Exit code 0: the same; 1: it differs, or every network
was refused.
"""

import argparse
import difflib
import io
import os
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

import onnx

from cases import REPO, all_cases

# Large networks repeat the code of small ones and only add weights.
LARGEST_MODEL_BYTES = 12_000_000
SHOWN_LINES = 40
REFUSED = "refused.txt"


def write_corpus(folder: Path) -> None:
    """Write one `<name>.onnx` per network that is small enough."""
    for case in all_cases():
        data = case.model().SerializeToString()
        if len(data) <= LARGEST_MODEL_BYTES:
            (folder / f"{case.name}.onnx").write_bytes(data)


def emit(corpus: Path, out: Path) -> None:
    """Emit every network of `corpus` into `out/<name>/` with the importable sparrow.

    A network that the compiler refuses leaves its reason as a file, to be compared like the code.
    """
    import sparrow
    from sparrow.errors import SparrowError

    for path in sorted(corpus.glob("*.onnx")):
        folder = out / path.stem
        folder.mkdir(parents=True)
        try:
            files = sparrow.emit_sources(onnx.load(path))
        except SparrowError as error:
            files = {REFUSED: f"{error}\n".encode()}
        for name, data in files.items():
            target = folder / name
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(data)


def sources(revision: str | None, folder: Path) -> Path:
    """The `src` of a revision, unpacked under `folder`; of the working tree for None.

    Raises:
        SystemExit: git does not know the revision, or it has no src.
    """
    if revision is None:
        return REPO / "src"
    archive = subprocess.run(
        ["git", "-C", str(REPO), "archive", revision, "src"], capture_output=True, check=False
    )
    if archive.returncode:
        raise SystemExit(f"replay: {revision}: {archive.stderr.decode().strip()}")
    with tarfile.open(fileobj=io.BytesIO(archive.stdout)) as tar:
        tar.extractall(folder, filter="data")
    return folder / "src"


def emitted_by(revision: str | None, corpus: Path, folder: Path) -> dict[str, bytes]:
    """All files that the compiler of `revision` makes of the corpus, by `<network>/<file>`."""
    folder.mkdir()
    path = os.pathsep.join([str(sources(revision, folder)), os.environ.get("PYTHONPATH", "")])
    out = folder / "out"
    # A fresh interpreter each: two versions of one package cannot live in the same.
    subprocess.run(
        [sys.executable, __file__, "--emit", str(corpus), str(out)],
        env=os.environ | {"PYTHONPATH": path},
        check=True,
    )
    files = sorted(p for p in out.rglob("*") if p.is_file())
    return {p.relative_to(out).as_posix(): p.read_bytes() for p in files}


def described(name: str, before: bytes | None, after: bytes | None) -> list[str]:
    """The lines that show one difference."""
    if before is None or after is None:
        return [f"{name}: {'new' if before is None else 'gone'}"]
    try:
        old, new = before.decode().splitlines(), after.decode().splitlines()
    except UnicodeDecodeError:
        return [f"{name}: {len(before)} bytes before, {len(after)} bytes after, contents differ"]
    diff = list(difflib.unified_diff(old, new, f"before/{name}", f"after/{name}", "", "", 2, ""))
    more = len(diff) - SHOWN_LINES
    return diff[:SHOWN_LINES] + ([f"... {more} more lines"] if more > 0 else [])


def replay(before: str, after: str | None) -> int:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        corpus = folder / "corpus"
        corpus.mkdir()
        write_corpus(corpus)
        old = emitted_by(before, corpus, folder / "before")
        new = emitted_by(after, corpus, folder / "after")
    changed = [k for k in sorted(old.keys() | new.keys()) if old.get(k) != new.get(k)]
    for key in changed:
        print("\n".join(described(key, old.get(key), new.get(key))))
    networks = {key.split("/")[0] for key in new}
    refused = {key.split("/")[0] for key in new if key.endswith(f"/{REFUSED}")}
    touched = {key.split("/")[0] for key in changed}
    print(
        f"{len(changed)} files differ, in {len(touched)} of {len(networks)} networks; "
        f"{len(refused)} networks refused"
    )
    return 1 if changed or networks == refused else 0


def main() -> int:
    parser = argparse.ArgumentParser(description="Compare the emitted code of two revisions.")
    parser.add_argument("before", nargs="?", default="HEAD")
    parser.add_argument("after", nargs="?", help="default: the working tree")
    parser.add_argument("--emit", nargs=2, type=Path, metavar=("CORPUS", "OUT"), help="only emit")
    options = parser.parse_args()
    if options.emit:
        emit(*options.emit)
        return 0
    return replay(options.before, options.after)


if __name__ == "__main__":
    sys.exit(main())

"""A network as engines may take it, and what calls the converters that engines bring along."""

import shutil
import subprocess
import sysconfig
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import onnx

from models import Feeds


class RefusedError(Exception):
    """The engine cannot take this network; the text says why."""


@dataclass(frozen=True, slots=True, eq=False)
class Network:
    """A network as engines may take it: ONNX, some inputs, and the TFLite file it came from."""

    model: onnx.ModelProto
    inputs: Sequence[Feeds]
    tflite: Path | None = None


def convert(command: Sequence[str], folder: Path, made: str) -> Path:
    """What a converter makes in a folder; one of the virtual environment, else of the path.

    Raises:
        RefusedError: It is not installed, or fails; the text is its last line.
    """
    tool = Path(sysconfig.get_path("scripts")) / command[0]
    found = str(tool) if tool.exists() else shutil.which(command[0])
    if found is None:
        raise RefusedError(f"{command[0]} is not installed")
    done = subprocess.run(
        [found, *command[1:]], cwd=folder, capture_output=True, text=True, check=False
    )
    if done.returncode or not (folder / made).exists():
        last = (done.stdout + done.stderr).strip().splitlines()[-1:]
        raise RefusedError(f"{command[0]}: {' '.join(last)}")
    return folder / made

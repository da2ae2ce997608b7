"""What the JSON files of a bundle have in common: kinds of fields, limits, reading and writing."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any, ClassVar, TypeAlias, TypeVar

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    FailFast,
    Field,
    TypeAdapter,
    ValidationError,
    model_validator,
)

from sparrow.errors import BadBundle, BadInput, UnsupportedOp
from sparrow.importers.file import read_file

# Values cost more than bytes do: half a kilobyte and two microseconds for each that a file of
# nothing else holds. A step is described in some ninety, so that this is room for two thousand.
MAX_VALUES = 200_000
MAX_BYTES = 8 << 20


# A page divides by these and formats them.
Count: TypeAlias = Annotated[int, Field(ge=-(1 << 63), lt=1 << 63)]
Real: TypeAlias = Annotated[float, Field(allow_inf_nan=False)]

T = TypeVar("T")
# One error is enough: a list of them would take a thousand bytes for each byte of a hostile file.
Many: TypeAlias = Annotated[tuple[T, ...], FailFast()]
Some: TypeAlias = Annotated[tuple[T, ...], FailFast(), Field(min_length=1)]


def _each(kind: Any) -> Any:
    """Check that the values of a dictionary are of a kind; the first that is not is the error."""
    adapter = TypeAdapter(kind)

    def check(found: Any) -> Any:
        for name, value in found.items() if isinstance(found, dict) else ():
            try:
                adapter.validate_python(value)
            except ValidationError as e:
                raise ValueError(f"{name!r}: {e.errors()[0]['msg']}") from None
        return found

    return BeforeValidator(check)


Texts: TypeAlias = Annotated[dict[str, str], _each(str)]
Reals: TypeAlias = Annotated[dict[str, Real], _each(Real)]
Counts: TypeAlias = Annotated[dict[str, Count], _each(Count)]


class Record(BaseModel):
    """Base of all records: frozen, no unknown fields.

    Attributes:
        compact: Written without line breaks.
    """

    compact: ClassVar[bool] = False

    model_config = ConfigDict(frozen=True)

    @model_validator(mode="before")
    @classmethod
    def _known(cls, found: Any) -> Any:
        strange = [k for k in found if k not in cls.model_fields] if type(found) is dict else ()
        if strange:
            raise ValueError(f"a record has no {strange[0]!r}")
        return found

    def __getitem__(self, field: str) -> Any:
        """A field by name, so that a record reads like its JSON."""
        if field not in type(self).model_fields:
            raise KeyError(field)
        return getattr(self, field)


def dump(record: Record) -> bytes:
    """Canonical JSON of a record: fixed order, one trailing newline, no infinity or NaN.

    Raises:
        UnsupportedOp: `load` would not read it: the network has too many steps.
    """
    plain = record.model_dump(mode="json")
    indent, separators = (None, (",", ":")) if record.compact else (1, None)
    text = json.dumps(_finite(plain), indent=indent, separators=separators, ensure_ascii=True)
    data = (text + "\n").encode()
    if too_large := _too_large(data):
        raise UnsupportedOp(
            f"the network has too many steps: to describe them takes {too_large}",
            hint="unroll fewer iterations, or split it into models of their own",
        )
    return data


def _too_large(data: bytes) -> str:
    """What of a record is beyond the limits; ``""`` when nothing is."""
    values = data.count(b",") + data.count(b"[") + data.count(b"{")
    rows = ((len(data), MAX_BYTES, "bytes"), (values, MAX_VALUES, "values"))
    return next((f"{n} {what}, at most {most} are read" for n, most, what in rows if n > most), "")


def _finite(v: Any) -> Any:
    if isinstance(v, float) and not (-1e308 < v < 1e308):
        return 1e308 if v > 0 else -1e308 if v < 0 else 0.0
    if isinstance(v, dict):
        return {k: _finite(x) for k, x in v.items()}
    return [_finite(x) for x in v] if isinstance(v, (list, tuple)) else v


R = TypeVar("R", bound=BaseModel)


def load(kind: type[R], path: Path) -> R:
    """Read a record.

    Raises:
        BadBundle: The file is missing, too large, no JSON, or of another schema.
    """
    try:
        data = read_file(path, MAX_BYTES + 1)
        if too_large := _too_large(data):
            raise BadBundle(f"{path}: {too_large}")
        # errors of what is parsed here refer to it; those of JSON have a copy each
        return kind.model_validate(json.loads(data))
    except BadInput as e:
        raise BadBundle(e.message, hint="is this a bundle folder?") from None
    except RecursionError:
        raise BadBundle(f"{path}: nests too deeply") from None
    except ValidationError as e:
        first = e.errors(include_url=False, include_context=False, include_input=False)[0]
        where = ".".join(map(str, first["loc"])) or "the file"
        raise BadBundle(
            f"{path}: {where}: {first['msg']}", hint="build the model again with this version"
        ) from None
    except ValueError as e:
        raise BadBundle(f"{path}: no JSON: {e}") from None

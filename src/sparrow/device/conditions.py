"""What a device says of itself while it measures: clocks, governor, temperature, throttling.

Linux tells it in files; the same ones are read on this machine and, through a shell, on others.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from sparrow.errors import BadInput

_CPU = "/sys/devices/system/cpu/cpu[0-9]*"
# Files of one line, as patterns of a shell. None is needed: each that is missing says less.
FILES = (
    f"{_CPU}/cpu_capacity",
    f"{_CPU}/cpufreq/cpuinfo_max_freq",
    f"{_CPU}/cpufreq/scaling_max_freq",
    f"{_CPU}/cpufreq/scaling_cur_freq",
    f"{_CPU}/cpufreq/scaling_governor",
    f"{_CPU}/thermal_throttle/core_throttle_count",
    "/sys/devices/system/cpu/online",
    "/sys/class/thermal/thermal_zone[0-9]*/temp",
    "/sys/class/thermal/thermal_zone[0-9]*/type",
    "/sys/devices/platform/soc/soc:firmware/get_throttled",
)
_CORE = re.compile(r"/cpu(\d+)/")
# Thermal zones beside the cores', such as those of a battery or a radio.
_COOL = re.compile(
    r"batt|charg|usb|wifi|wlan|modem|pa-?therm|skin|xo-therm|pmic|acpitz", re.IGNORECASE
)
# A cap below this share of a core's full clock counts as throttled.
_CAPPED = 0.98
# Raspberry Pi: under-voltage, clock capped, throttled, soft limit of temperature, all at present.
_PI_NOW = {0: "under-voltage", 1: "clock capped", 2: "throttled", 3: "soft temperature limit"}


@dataclass(frozen=True, slots=True)
class Conditions:
    """The state of a device at one moment; what it does not tell is empty, 0 or None.

    Attributes:
        device: Its name and CPU in words.
        cores: Those that a measured program may run on; all when it was not said.
        governor: Of those cores, the different ones.
        mhz: Their clocks now.
        full_mhz: Their highest clocks.
        limits: What holds them below that now, in words.
        celsius: The hottest of its zones.
        throttles: Throttling events since it was started.
    """

    device: str = ""
    cores: tuple[int, ...] = ()
    governor: str = ""
    mhz: tuple[int, ...] = ()
    full_mhz: tuple[int, ...] = ()
    limits: tuple[str, ...] = ()
    celsius: float | None = None
    throttles: int = 0

    def __str__(self) -> str:
        parts = [self.device]
        if self.cores:
            parts.append(f"cores {spans(self.cores)}")
        if self.mhz:
            now, full = _range(self.mhz), _range(self.full_mhz)
            parts.append(f"{now} MHz" + (f" of {full}" if full and full != now else ""))
        parts += [self.governor] if self.governor else []
        parts += [f"{self.celsius:.0f} C"] if self.celsius is not None else []
        return ", ".join(p for p in parts if p)


def read_here(files: Sequence[str] = FILES, root: Path = Path("/")) -> dict[str, str]:
    """The files of this machine: path -> content."""
    found = {}
    for pattern in files:
        for path in root.glob(pattern.lstrip("/")):
            try:
                found[f"/{path.relative_to(root).as_posix()}"] = path.read_text("utf-8").strip()
            except (OSError, UnicodeDecodeError):  # a core that is off, a sensor that is not ready
                continue
    return found


def conditions(
    files: Mapping[str, str], device: str = "", cores: Sequence[int] | None = None
) -> Conditions:
    """What the files say.

    Args:
        files: Path -> content.
        device: See `Conditions`.
        cores: What measured programs run on; None for all that are on.
    """
    on = tuple(cores) if cores is not None else online(files)

    def each(name: str) -> list[int]:
        paths = (f"/sys/devices/system/cpu/cpu{c}/{name}" for c in on)
        return [int(files[p]) for p in paths if files.get(p, "").isdigit()]

    governors = sorted(
        {
            g
            for c in on
            if (g := files.get(f"/sys/devices/system/cpu/cpu{c}/cpufreq/scaling_governor"))
        }
    )
    full, caps = each("cpufreq/cpuinfo_max_freq"), each("cpufreq/scaling_max_freq")
    limits = [
        f"core {c} is capped at {cap // 1000} of {most // 1000} MHz"
        for c, cap, most in zip(on, caps, full, strict=False)
        if cap < _CAPPED * most
    ]
    pi = files.get("/sys/devices/platform/soc/soc:firmware/get_throttled", "0")
    bits = int(pi, 16) if re.fullmatch(r"(0x)?[0-9a-fA-F]+", pi) else 0
    limits += [what for bit, what in _PI_NOW.items() if bits >> bit & 1]
    return Conditions(
        device,
        on,
        ", ".join(governors),
        tuple(khz // 1000 for khz in each("cpufreq/scaling_cur_freq")),
        tuple(khz // 1000 for khz in full),
        tuple(limits),
        _hottest(files),
        sum(each("thermal_throttle/core_throttle_count")),
    )


def online(files: Mapping[str, str]) -> tuple[int, ...]:
    """The cores that are on."""
    told = files.get("/sys/devices/system/cpu/online", "")
    if re.fullmatch(r"[\d,-]+", told):
        return parse_spans(told)
    return tuple(sorted({int(m[1]) for p in files if (m := _CORE.search(p))}))


def choose_cores(text: str, files: Mapping[str, str]) -> tuple[int, ...]:
    """The cores that ``big``, ``little`` or a list such as ``0-3,6`` names on a device.

    Raises:
        BadInput: It is neither, or the device does not tell its cores apart.
    """
    on = online(files)
    if text in ("big", "little"):
        speed = _speeds(files, on)
        if len(set(speed.values())) < 2:
            raise BadInput(
                f"--cores {text}: this device's cores are alike, or it does not say",
                hint="name them, as in --cores 0-3",
            )
        best = (max if text == "big" else min)(speed.values())
        return tuple(c for c, v in speed.items() if v == best)
    try:
        found = parse_spans(text)
    except ValueError:
        raise BadInput(f"--cores {text!r}", hint="use big, little, or a list as in 0-3,6") from None
    missing = [c for c in found if on and c not in on]
    if missing or not found or max(found) > 63:
        raise BadInput(f"--cores {text}: the device has {spans(on) or 'no such cores'}")
    return found


def _speeds(files: Mapping[str, str], on: Sequence[int]) -> dict[int, int]:
    """What tells cores apart, the faster the higher; some boards say one, some the other."""
    for name in ("cpu_capacity", "cpufreq/cpuinfo_max_freq"):
        paths = {c: f"/sys/devices/system/cpu/cpu{c}/{name}" for c in on}
        found = {c: int(files[p]) for c, p in paths.items() if files.get(p, "").isdigit()}
        if len(found) == len(on) and len(set(found.values())) > 1:
            return found
    return {}


def _hottest(files: Mapping[str, str]) -> float | None:
    found = []
    for path, kind in files.items():
        temperature = files.get(path.replace("/type", "/temp"), "")
        if not path.endswith("/type") or not re.fullmatch(r"\d+", temperature):
            continue
        value = int(temperature) / 1000 if len(temperature) > 3 else float(temperature)
        if not _COOL.search(kind) and 0 < value < 150:
            found.append(value)
    return max(found, default=None)


def spans(cores: Sequence[int]) -> str:
    """Numbers as Linux writes them: ``0-3,6``."""
    parts: list[list[int]] = []
    for c in sorted(cores):
        if parts and c == parts[-1][-1] + 1:
            parts[-1] = [parts[-1][0], c]
        else:
            parts.append([c])
    return ",".join("-".join(map(str, p)) for p in parts)


def parse_spans(text: str) -> tuple[int, ...]:
    """The numbers of `spans`.

    Raises:
        ValueError: It is no such text.
    """
    found: set[int] = set()
    for part in text.split(","):
        first, dash, last = part.partition("-")
        low, high = int(first), int(last if dash else first)
        if not 0 <= low <= high < 4096:
            raise ValueError(text)
        found.update(range(low, high + 1))
    return tuple(sorted(found))


def _range(values: Sequence[int]) -> str:
    low, high = min(values, default=0), max(values, default=0)
    return f"{high}" if low == high else f"{low}-{high}"

"""An Android phone that adb reaches, over USB or the network; kept awake while it runs models."""

from __future__ import annotations

import shutil
import subprocess

from sparrow.device.shell import Shell
from sparrow.errors import BadInput, DeviceError, SparrowError

LIST_S = 20
_DEBUGGING = "enable USB debugging in its developer options and plug it in, see `adb devices`"
# States of `adb devices` beside "device", and what to do about them.
_STATES = {
    "unauthorized": "accept the dialog on its screen",
    "authorizing": "accept the dialog on its screen",
    "offline": "plug it in again, or `adb reconnect`",
    "no permissions": "this user may not open the USB device: see the udev rules of Android",
    "recovery": "start Android on it",
    "sideload": "start Android on it",
    "bootloader": "start Android on it",
}
_STAY_ON = "stay_on_while_plugged_in"


class Adb(Shell):
    """Commands over ``adb shell``, whose second protocol keeps bytes and exit codes (Android 7).

    Args:
        serial: Of ``adb devices``; empty for the only one.

    Raises:
        BadInput: adb is not installed, or there are several phones and none is named.
        DeviceError: The phone is not there, or does not let us in.
    """

    roots = "/data/local/tmp"
    # the setting as it was: a phone that slept before shall sleep again
    ask = f"w=$(settings get global {_STAY_ON});"
    begin = "svc power stayon true; input keyevent KEYCODE_WAKEUP;"
    end = (
        'case "$w" in [0-9]*) settings put global ' + _STAY_ON + ' "$w";; '
        "*) settings delete global " + _STAY_ON + " >/dev/null;; esac;"
    )
    title = 'echo "$(getprop ro.product.model) $(getprop ro.soc.model)"'

    def __init__(self, serial: str = "") -> None:
        program = shutil.which("adb")
        if program is None:
            raise BadInput("adb is not installed", hint="install Android's platform tools")
        self.serial = _find(program, serial)
        self.name = f"adb:{self.serial}"
        self._command = [program, "-s", self.serial, "shell", "-T"]

    def command(self, script: str) -> list[str]:
        """See `Shell.command`."""
        return [*self._command, script]

    def lost(self, code: int, said: str) -> SparrowError | None:
        """See `Shell.lost`. Of a line that breaks adb says nothing, with code 0 or 255."""
        lines = [line.strip() for line in said.splitlines() if line.strip()]
        own = [line for line in lines if line.startswith(("adb:", "error:"))]
        if not own and (code not in (0, 255) or lines):
            return None
        last = own[-1].partition(":")[2].strip() if own else "the connection was lost"
        return DeviceError(f"{self.name}: {last}", hint="see whether it is plugged in and awake")


def _find(program: str, serial: str) -> str:
    found = _listed(program)
    if serial:
        if serial not in found:
            known = ", ".join(found) or "none"
            raise DeviceError(f"adb:{serial} is not connected; connected: {known}", hint=_DEBUGGING)
    elif not found:
        raise DeviceError("no phone is connected", hint=_DEBUGGING)
    elif len(found) > 1:
        raise BadInput(
            f"{len(found)} phones are connected", hint=f"name one: adb:{', adb:'.join(found)}"
        )
    else:
        (serial,) = found
    state = found[serial]
    if state != "device":
        hint = next((h for s, h in _STATES.items() if state.startswith(s)), "see `adb devices`")
        raise DeviceError(f"adb:{serial} is {state}", hint=hint)
    return serial


def _listed(program: str) -> dict[str, str]:
    """Serial -> state of every phone."""
    try:
        done = subprocess.run(
            [program, "devices"],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=LIST_S,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise DeviceError(
            f"adb does not answer for {LIST_S} s", hint="try `adb kill-server`"
        ) from None
    except OSError as e:
        raise BadInput(f"{program} does not start: {e.strerror}") from None
    out = done.stdout.decode("utf-8", "replace")
    if done.returncode:
        said = (done.stderr.decode("utf-8", "replace").strip() or out.strip()).splitlines()
        raise DeviceError(f"adb devices: {said[-1] if said else f'code {done.returncode}'}")
    rows = (line.partition("\t") for line in out.splitlines() if "\t" in line)
    return {serial.strip(): state.strip() for serial, _, state in rows}

"""A device that the system's ssh reaches; user, port, keys and jumps are those of its config."""

from __future__ import annotations

import shlex
import shutil
import sys
import tempfile
import weakref
from pathlib import Path

from sparrow.device.shell import Shell
from sparrow.errors import BadInput, DeviceError, SparrowError

CONNECT_S = 10
_OPTIONS = (
    "BatchMode=yes",
    f"ConnectTimeout={CONNECT_S}",
    # a line that is dead is noticed after three of these
    "ServerAliveInterval=5",
    "ServerAliveCountMax=3",
    "RequestTTY=no",
    "RemoteCommand=none",
    "ForwardAgent=no",
    "ForwardX11=no",
    "LogLevel=ERROR",
)
# ssh's own failures exit with this code; so may a program, which our runner never does.
_OWN = 255


class Ssh(Shell):
    """Commands over ssh, all over one connection where the system can share it.

    Args:
        destination: ``user@host``, a name of the ssh config, or ``//user@host:port``.

    Raises:
        BadInput: ssh is not installed, or it is no destination.
    """

    # not the home folder first: it may be a slow network's
    roots = '"${TMPDIR:-/tmp}" /var/tmp /dev/shm "$HOME"'
    title = (
        'echo "$(tr -d "\\000" 2>/dev/null </proc/device-tree/model || hostname) '
        '$(grep -m1 -s "model name" /proc/cpuinfo | cut -d: -f2)"'
    )

    def __init__(self, destination: str) -> None:
        self.name = f"ssh:{destination}"
        if destination.startswith("//"):
            destination = f"ssh:{destination}"
        if not destination or destination.startswith("-") or not destination.isprintable():
            raise BadInput(f"--device {self.name!r}", hint="use ssh:user@host")
        self.destination = destination
        program = shutil.which("ssh")
        if program is None:
            raise BadInput("ssh is not installed", hint="install the OpenSSH client")
        options = list(_OPTIONS)
        if sys.platform != "win32":  # whose ssh cannot share a connection
            # short: the path of a socket has some hundred characters
            folder = tempfile.mkdtemp(prefix="sp-")
            weakref.finalize(self, shutil.rmtree, folder, ignore_errors=True)
            options += ["ControlMaster=auto", f"ControlPath={Path(folder) / 's'}"]
            options += ["ControlPersist=no"]
        self._command = [program, "-T", *(x for o in options for x in ("-o", o)), "--"]

    def command(self, script: str) -> list[str]:
        """See `Shell.command`. The login shell, which may be any, hands it to sh."""
        return [*self._command, self.destination, f"exec sh -c {shlex.quote(script)}"]

    def lost(self, code: int, said: str) -> SparrowError | None:
        """See `Shell.lost`."""
        if code != _OWN:
            return None
        lines = [line.strip() for line in said.splitlines() if line.strip()]
        last = lines[-1] if lines else "the connection was lost"
        return DeviceError(f"{self.name}: {last}", hint=_hint(said, self.destination))


def _hint(said: str, destination: str) -> str:
    """What to do about a message of ssh's."""
    if "IDENTIFICATION HAS CHANGED" in said:
        return (
            "its host key is not the one in known_hosts: find out why, then remove the old one "
            "with ssh-keygen -R"
        )
    if "Host key verification failed" in said or "host key is known" in said:
        return f"its host key is not known yet: connect once with `ssh {destination}`"
    if "Permission denied" in said:
        return f"ssh may not ask for a password here: `ssh-copy-id {destination}`, or ssh-add a key"
    if "resolve hostname" in said:
        return "see whether the name is right and the device is on the network"
    if any(w in said for w in ("refused", "timed out", "No route", "unreachable")):
        return "see whether the device is on and sshd runs there"
    return f"see whether `ssh {destination} true` works"

"""The daemon of an Android phone, faked over TCP: what adb needs to list it and to run its shell.

CNXN with or without authorization, and the second shell protocol with standard input, output, error
and exit code. Commands run here; paths of the phone's own files lie under a root folder.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import socket
import struct
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

from data import missing

CNXN, AUTH, OPEN, OKAY, CLSE, WRTE = (
    int.from_bytes(name, "little")
    for name in (b"CNXN", b"AUTH", b"OPEN", b"OKAY", b"CLSE", b"WRTE")
)
BANNER = b"device::ro.product.name=fake;ro.product.model=Fake;ro.product.device=fake;features="
# Packets of the second shell protocol.
STDIN, STDOUT, STDERR, EXIT, CLOSE_STDIN = range(5)
LARGEST = 65536
# The setting that keeps a phone awake.
AWAKE = "stay_on_while_plugged_in"

# The phone's programs that the runner calls; settings are files.
_PROGRAMS = {
    "settings": """\
f="$ROOT/settings/$3"; echo "settings $*" >>"$ROOT/log"
case $1 in
get) if [ -e "$f" ]; then cat "$f"; else echo null; fi;;
put) echo "$4" >"$f";;
delete) rm -f "$f"; echo "Deleted 1 rows";;
esac
""",
    "svc": """\
echo "svc $*" >>"$ROOT/log"
[ "$3" = true ] && echo 15 >"$ROOT/settings/stay_on_while_plugged_in"
""",
    "input": 'echo "input $*" >>"$ROOT/log"\n',
    "getprop": 'case $1 in ro.product.model) echo Pixel;; *) echo "Tensor G9";; esac\n',
}
# Cores 0-3 are little, 4-7 big; the governor of the big ones is held down.
_CORES = {
    c: ("500", "1800000", "1800000") if c < 4 else ("1024", "2800000", "2100000") for c in range(8)
}


class Phone:
    """A fake phone.

    Args:
        root: Its file system.
        authorized: Whether it lets adb in.

    Attributes:
        emulator: Runs its programs, which `uname` then is of; empty for this machine's.
    """

    def __init__(self, root: Path, authorized: bool = True) -> None:
        self.root = root
        self.emulator = ""
        self.authorized = authorized
        self.scratch = root / "data/local/tmp"
        for folder in ("data/local/tmp", "settings", "bin"):
            (root / folder).mkdir(parents=True, exist_ok=True)
        for name, text in _PROGRAMS.items():
            (root / "bin" / name).write_text(f"#!/bin/sh\n{text}")
            (root / "bin" / name).chmod(0o755)
        self._sysfs()
        self._connections: list[_Connection] = []
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.serial = f"127.0.0.1:{self._listening.getsockname()[1]}"
        threading.Thread(target=self._accept, daemon=True).start()

    def become(self, machine: str) -> None:
        """Run programs for another kind of machine from now on, in qemu's user mode."""
        self.emulator = f"qemu-{machine}"
        path = self.root / "bin" / "uname"
        path.write_text(f"#!/bin/sh\necho {machine}\n")
        path.chmod(0o755)

    def setting(self, name: str) -> str:
        """A setting; ``null`` where it was never made."""
        path = self.root / "settings" / name
        return path.read_text().strip() if path.exists() else "null"

    def left(self) -> list[str]:
        """What lies in the folder for temporary files, after a moment to clean up in."""
        for _ in range(100):
            if not (found := sorted(p.name for p in self.scratch.iterdir())):
                return []
            time.sleep(0.05)
        return found

    def unplug(self) -> None:
        """Close every connection, and take no more."""
        self._listening.close()
        for c in self._connections:
            c.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                connection = _Connection(self, self._listening.accept()[0])
                self._connections.append(connection)
                threading.Thread(target=connection.serve, daemon=True).start()

    def _sysfs(self) -> None:
        cpu = self.root / "sys/devices/system/cpu"
        for c, (capacity, full, cap) in _CORES.items():
            (cpu / f"cpu{c}/cpufreq").mkdir(parents=True)
            (cpu / f"cpu{c}/cpu_capacity").write_text(f"{capacity}\n")
            for name, value in (
                ("cpuinfo_max_freq", full),
                ("scaling_max_freq", cap),
                ("scaling_cur_freq", cap),
                ("scaling_governor", "schedutil"),
            ):
                (cpu / f"cpu{c}/cpufreq/{name}").write_text(f"{value}\n")
        (cpu / "online").write_text("0-7\n")
        for i, (kind, value) in enumerate((("battery", "90000"), ("cpu-0-0", "61500"))):
            zone = self.root / f"sys/class/thermal/thermal_zone{i}"
            zone.mkdir(parents=True)
            (zone / "type").write_text(f"{kind}\n")
            (zone / "temp").write_text(f"{value}\n")


class _Connection:
    """One connection of adb's server."""

    def __init__(self, phone: Phone, stream: socket.socket) -> None:
        self.phone = phone
        self._stream = stream
        self._lock = threading.Lock()
        self._services: dict[int, _Shell] = {}
        self.largest = 4096

    def send(self, command: int, a: int, b: int, data: bytes = b"") -> None:
        head = struct.pack(
            "<6I", command, a, b, len(data), sum(data) & 0xFFFFFFFF, command ^ 0xFFFFFFFF
        )
        with self._lock, contextlib.suppress(OSError):
            self._stream.sendall(head + data)

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self._stream.shutdown(socket.SHUT_RDWR)
        self._stream.close()

    def serve(self) -> None:
        with contextlib.suppress(OSError, EOFError):
            while True:
                command, a, b, size, _, _ = struct.unpack("<6I", self._read(24))
                self._take(command, a, b, self._read(size))
        for service in self._services.values():
            service.end()

    def _take(self, command: int, a: int, b: int, data: bytes) -> None:
        if (command == CNXN and not self.phone.authorized) or (command == AUTH and a == 2):
            self.send(AUTH, 1, 0, bytes(20))
        elif command == CNXN:
            self.largest = min(b, LARGEST)
            self.send(CNXN, 0x01000000, LARGEST, BANNER + b"shell_v2,cmd")
        elif command == OPEN:
            service, _, script = data.rstrip(b"\0").decode().partition(":")
            if not service.startswith("shell,v2"):
                self.send(CLSE, 0, a)
                return
            number = len(self._services) + 1
            self.send(OKAY, number, a)
            self._services[number] = _Shell(self, number, a, script)
        elif command == WRTE:
            self.send(OKAY, b, a)
            self._services[b].feed(data)
        elif command == OKAY:
            self._services[b].ready.release()
        elif command == CLSE and b in self._services:
            self._services[b].end()

    def _read(self, size: int) -> bytes:
        found = b""
        while len(found) < size:
            part = self._stream.recv(size - len(found))
            if not part:
                raise EOFError
            found += part
        return found


class _Shell:
    """A command with its three streams, in packets of an id and a length."""

    def __init__(self, connection: _Connection, here: int, there: int, script: str) -> None:
        self.ready = threading.Semaphore(0)
        self._connection, self._here, self._there = connection, here, there
        self._pending = b""
        self._lock = threading.Lock()
        root = connection.phone.root
        script = re.sub(r"(?<![\w/])/(data/local/tmp|sys/)", rf"{root}/\1", script)
        script = re.sub(r'^(echo \S+; )(?=")', rf"\1{connection.phone.emulator} ", script)
        self._process = subprocess.Popen(
            ["sh", "-c", script],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            bufsize=0,
            env={**os.environ, "PATH": f"{root}/bin:{os.environ['PATH']}", "ROOT": str(root)},
        )
        threading.Thread(target=self._pump, daemon=True).start()

    def feed(self, data: bytes) -> None:
        self._pending += data
        while len(self._pending) >= 5:
            kind, size = struct.unpack("<BI", self._pending[:5])
            if len(self._pending) < 5 + size:
                return
            part, self._pending = self._pending[5 : 5 + size], self._pending[5 + size :]
            to = self._process.stdin
            assert to is not None
            with contextlib.suppress(OSError, ValueError):
                if kind == STDIN:
                    while part:
                        part = part[to.write(part) :]
                elif kind == CLOSE_STDIN:
                    to.close()

    def end(self) -> None:
        """The other side is gone."""
        for _ in range(2):
            self.ready.release()
        with contextlib.suppress(OSError):
            assert self._process.stdin is not None
            self._process.stdin.close()

    def _pump(self) -> None:
        p = self._process
        both = [
            threading.Thread(target=self._copy, args=(kind, stream))
            for kind, stream in ((STDOUT, p.stdout), (STDERR, p.stderr))
        ]
        for t in both:
            t.start()
        for t in both:
            t.join()
        self._send(EXIT, bytes([p.wait() & 255]))
        self._connection.send(CLSE, self._here, self._there)

    def _copy(self, kind: int, stream: object) -> None:
        # a phone's paths do not begin with our folder, which may come in two parts
        ours = str(self._connection.phone.root).encode() + b"/sys/"
        kept = b""
        while data := os.read(stream.fileno(), self._connection.largest - 5 - len(ours)):  # type: ignore[attr-defined]
            data = (kept + data).replace(ours, b"/sys/")
            begun = next((n for n in range(len(ours), 0, -1) if data.endswith(ours[:n])), 0)
            data, kept = data[: len(data) - begun], data[len(data) - begun :]
            if data:
                self._send(kind, data)
        if kept:
            self._send(kind, kept)

    def _send(self, kind: int, data: bytes) -> None:
        with self._lock:
            packet = struct.pack("<BI", kind, len(data)) + data
            self._connection.send(WRTE, self._here, self._there, packet)
            self.ready.acquire(timeout=20)


@contextlib.contextmanager
def fake_phones(folder: Path, *authorized: bool) -> Iterator[list[Phone]]:
    """Phones that an adb server of the block's own is connected to.

    The caller puts ``ANDROID_ADB_SERVER_PORT`` and ``HOME``, where adb keeps its key, in place.
    """
    adb = shutil.which("adb")
    if adb is None:
        missing("adb is not installed")
    phones = [Phone(folder / f"phone{i}", a) for i, a in enumerate(authorized)]

    def run(*words: str) -> None:
        subprocess.run([str(adb), *words], capture_output=True, timeout=60, check=False)

    try:
        for phone in phones:
            run("connect", phone.serial)
        yield phones
    finally:
        run("kill-server")
        for phone in phones:
            phone.unplug()


def free_port() -> int:
    """A port that nothing listens at."""
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return int(s.getsockname()[1])

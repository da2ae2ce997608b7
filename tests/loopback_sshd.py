"""An OpenSSH server of a test's own on this machine, and an ``ssh`` that knows it."""

from __future__ import annotations

import contextlib
import getpass
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

from data import missing

SSHD = shutil.which("sshd", path=f"/usr/sbin:{os.environ.get('PATH', '')}")
# What the ssh config of the test calls the server.
HOST = "board"


class Server:
    """A running server.

    Attributes:
        port: Where it listens.
        folder: Its keys, its config, the client's config, and ``bin/ssh``.
        scratch: TMPDIR of the sessions: what is left there was left behind.
    """

    def __init__(self, folder: Path) -> None:
        if SSHD is None or shutil.which("ssh") is None:
            missing("openssh-server or openssh-client is not installed")
        self.folder = folder
        self.scratch = folder / "scratch"
        self.scratch.mkdir()
        if os.geteuid() == 0:
            # where a server that runs as root locks its children in
            Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)
        with socket.socket() as s:
            s.bind(("127.0.0.1", 0))
            self.port = int(s.getsockname()[1])
        for name in ("host", "other", "client"):
            self._key(name)
        shutil.copy(folder / "client.pub", folder / "authorized")
        (folder / "sshd_config").write_text(
            f"Port {self.port}\nListenAddress 127.0.0.1\nHostKey {folder}/host\nPidFile none\n"
            f"AuthorizedKeysFile {folder}/authorized\nStrictModes no\nUsePAM no\n"
            "PasswordAuthentication no\nKbdInteractiveAuthentication no\n"
            f"PermitRootLogin prohibit-password\nSetEnv TMPDIR={self.scratch}\n"
        )
        self.trust("host")
        (folder / "bin").mkdir()
        program = folder / "bin" / "ssh"
        program.write_text(f'#!/bin/sh\nexec {shutil.which("ssh")} -F {folder}/config "$@"\n')
        program.chmod(0o755)
        self.configure()
        self.process = self._start()

    def configure(self, **options: str) -> None:
        """Write the client's config."""
        known = {
            "HostName": "127.0.0.1",
            "Port": str(self.port),
            "User": getpass.getuser(),
            "IdentityFile": f"{self.folder}/client",
            "IdentitiesOnly": "yes",
            "UserKnownHostsFile": f"{self.folder}/known",
            "GlobalKnownHostsFile": "/dev/null",
            **options,
        }
        lines = [f"Host {HOST}", *(f"  {k} {v}" for k, v in known.items())]
        (self.folder / "config").write_text("\n".join(lines) + "\n")

    def trust(self, *keys: str) -> None:
        """Make these the keys that the client knows the server by."""
        rows = []
        for name in keys:
            kind, key = (self.folder / f"{name}.pub").read_text().split()[:2]
            rows.append(f"[127.0.0.1]:{self.port} {kind} {key}\n")
        (self.folder / "known").write_text("".join(rows))

    def left(self) -> list[str]:
        """What sessions left in their temporary folder, after a moment to clean up in."""
        for _ in range(100):
            if not (found := sorted(p.name for p in self.scratch.iterdir())):
                return []
            time.sleep(0.05)
        return found

    def sessions(self) -> list[int]:
        """Processes of the server beside the one that listens."""
        found = []
        for path in Path("/proc").glob("[0-9]*/stat"):
            with contextlib.suppress(OSError):
                # the name before the last bracket may hold anything; state and parent follow
                if path.read_text().rpartition(")")[2].split()[1] == str(self.process.pid):
                    found.append(int(path.parent.name))
        return found

    def programs(self) -> list[int]:
        """Processes of runners that lie in the sessions' temporary folder."""
        found = []
        for path in Path("/proc").glob("[0-9]*/cmdline"):
            with contextlib.suppress(OSError):
                if path.read_bytes().startswith(bytes(self.scratch)):
                    found.append(int(path.parent.name))
        return found

    def close(self) -> None:
        self.process.terminate()
        self.process.wait()

    def _key(self, name: str) -> None:
        subprocess.run(
            ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(self.folder / name)],
            check=True,
        )

    def _start(self) -> subprocess.Popen[bytes]:
        assert SSHD is not None
        with (self.folder / "log").open("wb") as log:
            process = subprocess.Popen(
                [SSHD, "-D", "-e", "-f", str(self.folder / "sshd_config")],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        for _ in range(100):
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port)):
                return process
            assert process.poll() is None, (self.folder / "log").read_text()
            time.sleep(0.05)
        raise AssertionError("sshd does not listen")


@contextlib.contextmanager
def loopback_sshd(folder: Path) -> Iterator[Server]:
    """A server that lives as long as the block."""
    server = Server(folder)
    try:
        yield server
    finally:
        server.close()

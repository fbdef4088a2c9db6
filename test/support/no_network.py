"""Run a command where nothing can be reached, and report the names that it looks up.

``python no_network.py REPORT COMMAND...``: in a user, network and mount namespace of its own, with a name server on the
loopback that answers "no such name" and writes every name it is asked for to REPORT, one a line. Needs Linux and unshare.
"""

from __future__ import annotations

import ctypes
import fcntl
import os
import shutil
import socket
import struct
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

INSIDE = "RFDETR_FOUNDATIONPOSE_TEST_INSIDE"
UNSHARE = ["unshare", "--user", "--map-root-user", "--net", "--mount"]
SIOCSIFFLAGS, IFF_UP, IFF_LOOPBACK, IFF_RUNNING, IFF_MULTICAST = 0x8914, 0x1, 0x8, 0x40, 0x1000
MS_BIND = 4096


def available() -> bool:
    """Whether this machine lets us make such a namespace."""
    if shutil.which("unshare") is None:
        return False
    return subprocess.run([*UNSHARE, "true"], capture_output=True, check=False).returncode == 0


def run(
    report: Path, command: list[str], environment: dict[str, str], timeout: float
) -> subprocess.CompletedProcess[str]:
    """The command's exit code and output; the names it looked up are in ``report``."""
    line = [*UNSHARE, sys.executable, __file__, str(report), *command]
    environment = {**environment, INSIDE: "1"}
    return subprocess.run(line, env=environment, capture_output=True, text=True, timeout=timeout, check=False)


def _loopback_up() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
        flags = IFF_UP | IFF_LOOPBACK | IFF_RUNNING | IFF_MULTICAST
        fcntl.ioctl(s, SIOCSIFFLAGS, struct.pack("16sh14x", b"lo", flags))


def _own_resolver() -> None:
    with tempfile.NamedTemporaryFile("w", delete=False) as file:
        file.write("nameserver 127.0.0.1\noptions timeout:1 attempts:1\n")
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.mount(file.name.encode(), b"/etc/resolv.conf", None, MS_BIND, None):
        raise OSError(ctypes.get_errno(), "cannot mount over /etc/resolv.conf")


def _name(query: bytes) -> str:
    labels, at = [], 12
    while query[at]:
        labels.append(query[at + 1 : at + 1 + query[at]].decode(errors="replace"))
        at += 1 + query[at]
    return ".".join(labels)


def _serve(server: socket.socket, report: Path) -> None:
    while True:
        query, address = server.recvfrom(4096)
        with report.open("a") as file:
            file.write(_name(query) + "\n")
        server.sendto(query[:2] + b"\x81\x83" + query[4:6] + b"\0\0\0\0\0\0" + query[12:], address)


def main() -> int:
    report, command = Path(sys.argv[1]), sys.argv[2:]
    _loopback_up()
    _own_resolver()
    server = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    server.bind(("127.0.0.1", 53))
    report.touch()
    threading.Thread(target=_serve, args=(server, report), daemon=True).start()
    return subprocess.run(command, check=False).returncode


if __name__ == "__main__" and os.environ.pop(INSIDE, ""):
    sys.exit(main())

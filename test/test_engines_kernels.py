"""The file of compiled kernels: whole or not at all, whoever writes it, and given to the library only if it is one of ours."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from rfdetr_foundationpose import resources
from rfdetr_foundationpose.engines.engine_folder import EngineFolder, EngineKey, Machine
from rfdetr_foundationpose.engines.kernel_cache import MAGIC, KernelCache, pack, unpack
from rfdetr_foundationpose.resources import UNFINISHED, write_whole

BLOB = bytes(range(256)) * 400


class Kernels:
    """As the library's runtime cache: it knows whose kernels it is given, and compiles what it was not given."""

    def __init__(self, machine: bytes = b"sm_89 ") -> None:
        self.machine = machine
        self.held = b""
        self.given: list[bytes] = []

    def deserialize(self, blob: bytes) -> bool:
        self.given.append(blob)
        if not blob.startswith(self.machine):
            return False
        self.held = blob
        return True

    def serialize(self) -> bytes:
        return self.held or self.machine + BLOB


def start(file: Path, machine: bytes = b"sm_89 ") -> tuple[bool, Path | None, Kernels]:
    """What a start does: whether kernels were there, where they were written, and the library's side."""
    kernels = Kernels(machine)
    cache = KernelCache(kernels, file, "refiner")
    return cache.load(), cache.keep(), kernels


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "rfdetr_foundationpose" / "kernels"


def test_the_second_start_compiles_and_writes_nothing(tmp_path):
    file = tmp_path / "engines" / "refiner.kernels"
    assert start(file)[:2] == (False, file)
    written = file.stat().st_mtime_ns
    found, kept, kernels = start(file)
    assert (found, kept) == (True, None) and kernels.given == [b"sm_89 " + BLOB]
    assert file.stat().st_mtime_ns == written
    assert [p.name for p in file.parent.iterdir()] == [file.name]


def test_kernels_of_another_gpu_are_offered_refused_and_replaced(tmp_path, said):
    file = tmp_path / "refiner.kernels"
    start(file, b"sm_120 ")
    assert start(file)[:2] == (False, file)
    assert any("are of another machine; compiling anew" in line for line in said)
    assert start(file)[0]


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\x7fELF" + BLOB,
        b"sm_89 " + BLOB,
        pack(b"sm_89 " + BLOB)[:-1],
        pack(b"sm_89 " + BLOB) + b"x",
        pack(b"sm_89 " + BLOB).replace(b"sm_89", b"sm_88"),
        MAGIC,
        MAGIC + bytes(32),
    ],
    ids=["empty", "foreign", "without header", "truncated", "longer", "changed", "header alone", "no kernels"],
)
def test_what_is_not_whole_or_not_ours_never_reaches_the_library(content, tmp_path, said):
    """It would be run on the GPU."""
    file = tmp_path / "refiner.kernels"
    file.write_bytes(content)
    found, kept, kernels = start(file)
    assert (found, kept, kernels.given) == (False, file, [])
    assert any("is damaged, or no file of compiled kernels" in line for line in said)
    assert start(file)[0], "and a good one took its place"


@pytest.mark.parametrize("where", ["below a file", "a folder of that name"])
def test_a_folder_that_cannot_be_written_leaves_them_to_the_user_s_cache(where, tmp_path, own_cache):
    """Nobody can write there, root neither: engines on a read-only medium."""
    if where == "below a file":
        (tmp_path / "robot").touch()
    else:
        (tmp_path / "robot" / "refiner.kernels").mkdir(parents=True)
    file = tmp_path / "robot" / "refiner.kernels"
    assert start(file)[:2] == (False, own_cache / file.name)
    assert start(file)[:2] == (True, None), "and are found there"


def test_without_any_place_to_write_kernels_are_compiled_each_time(tmp_path, monkeypatch, said):
    def nowhere() -> Path:
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr("rfdetr_foundationpose.engines.kernel_cache.cache_directory", nowhere)
    (tmp_path / "robot").touch()
    file = tmp_path / "robot" / "refiner.kernels"
    for _ in range(2):
        assert start(file)[:2] == (False, None)
    assert any("there is no cache for compiled kernels" in line for line in said)


def test_a_full_disk_leaves_the_old_file_and_nothing_half_written(tmp_path, monkeypatch, own_cache):
    file = tmp_path / "refiner.kernels"
    start(file, b"sm_120 ")
    before = file.read_bytes()

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    assert start(file)[:2] == (False, None)
    assert file.read_bytes() == before
    assert not list(tmp_path.glob(f"{UNFINISHED}*")) and not list(own_cache.glob("*"))


def test_a_reader_beside_several_writers_never_sees_a_part(tmp_path):
    file = tmp_path / "refiner.kernels"
    blobs = [bytes([i]) * (200_000 + i) for i in range(4)]
    write_whole(file, pack(blobs[0]))
    writers = [threading.Thread(target=lambda b=b: [write_whole(file, pack(b)) for _ in range(10)]) for b in blobs]
    for writer in writers:
        writer.start()
    seen = []
    while any(writer.is_alive() for writer in writers):
        seen.append(unpack(file.read_bytes()))
    seen.append(unpack(file.read_bytes()))
    assert all(blob in blobs for blob in seen)
    assert [p.name for p in tmp_path.iterdir()] == [file.name], "nothing is left of the others"


def test_a_writer_that_is_killed_leaves_the_old_file(tmp_path):
    """In the middle of writing: it says when it is, and waits there."""
    file = tmp_path / "refiner.kernels"
    write_whole(file, pack(BLOB))
    script = (
        "import os, sys, time\nfrom pathlib import Path\nfrom rfdetr_foundationpose.resources import write_whole\n"
        "os.fsync = lambda _: (print('writing', flush=True), time.sleep(600))\n"
        "write_whole(Path(sys.argv[1]), bytes(1000000))"
    )
    root = Path(resources.__file__).resolve().parents[1]
    environment = {**os.environ, "PYTHONPATH": str(root)}
    writer = subprocess.Popen(
        [sys.executable, "-c", script, str(file)], stdout=subprocess.PIPE, text=True, env=environment
    )
    try:
        assert writer.stdout is not None and writer.stdout.readline().strip() == "writing"
    finally:
        writer.send_signal(signal.SIGKILL)
        writer.wait()
    assert unpack(file.read_bytes()) == BLOB
    (left,) = tmp_path.glob(f"{UNFINISHED}*")
    key = EngineKey("refiner", "ab" * 32, "fp16", {"rendered": (2, 6, 8, 8)})
    folder = EngineFolder(tmp_path)
    folder.store(key, Machine("tensorrt_rtx", "1.7.1", "sm_89"), ["sm_89"], b"engine", 1.0, "")
    assert left.exists(), "it may still be written to"
    os.utime(left, (0, 0))
    folder.store(key, Machine("tensorrt_rtx", "1.7.1", "sm_89"), ["sm_89"], b"engine", 1.0, "")
    assert not left.exists() and file.exists()

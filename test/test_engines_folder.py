"""Engines in a folder: found again only by what they were built from and for, whole or not at all."""

from __future__ import annotations

import dataclasses
import json
import os
import threading

import pytest

from rfdetr_foundationpose.engines.build_folder import EngineBuildError, Wanted, build_folder, parse_targets
from rfdetr_foundationpose.engines.engine_folder import (
    MANIFEST,
    EngineFolder,
    EngineKey,
    Machine,
    ManifestError,
    driver_version,
)
from rfdetr_foundationpose.engines.tensorrt_library import Library

KEY = EngineKey("refiner", "ab" * 32, "fp16", {"rendered": (2, 6, 160, 160), "observed": (2, 6, 160, 160)})
RTX = Machine("tensorrt_rtx", "1.7.1", "sm_89")
CLASSIC = Machine("tensorrt", "10.9.0", "sm_90", "NVIDIA H200", "570.86.15")
ENGINE = bytes(range(256)) * 40


def stored(folder: EngineFolder, key=KEY, machine=RTX, targets=("sm_86", "sm_89"), engine=ENGINE):
    return folder.store(key, machine, list(targets), engine, 1.25, "test weights")


def test_an_engine_comes_back_byte_for_byte(tmp_path):
    folder = EngineFolder(tmp_path / "engines")
    assert folder.load(KEY, RTX) is None and folder.reason == "refiner batch 2 fp16 is not built yet"
    entry = stored(folder)
    assert folder.load(KEY, RTX) == (entry, ENGINE) and folder.reason == ""
    assert entry.file.startswith("refiner_b2_fp16_tensorrt_rtx_sm_86+sm_89_")
    (listed,) = json.loads((folder.directory / MANIFEST).read_text())["engines"]
    assert listed["targets"] == ["sm_86", "sm_89"] and listed["about"] == "test weights" and listed["seconds"] == 1.2
    assert {p.name for p in folder.directory.iterdir()} == {entry.file, MANIFEST, ".lock"}


@pytest.mark.parametrize(
    "machine, change, reason",
    [
        (RTX, {"target": "sm_120"}, "GPU sm_86, sm_89 → sm_120"),
        (RTX, {"version": "1.8.0"}, "version 1.7.1 → 1.8.0"),
        (RTX, {"library": "tensorrt", "gpu": "NVIDIA L4"}, "library tensorrt_rtx → tensorrt"),
        (CLASSIC, {"driver": "580.1"}, "driver 570.86.15 → 580.1"),
        (CLASSIC, {"gpu": "NVIDIA H100"}, "GPU NVIDIA H200 → NVIDIA H100"),
    ],
)
def test_an_engine_for_another_machine_is_not_used(machine, change, reason, tmp_path):
    folder = EngineFolder(tmp_path)
    stored(folder, machine=machine, targets=("sm_86", "sm_89") if machine is RTX else ("sm_90",))
    assert folder.load(KEY, machine) is not None
    assert folder.load(KEY, dataclasses.replace(machine, **change)) is None
    assert "built for another machine" in folder.reason and reason in folder.reason


@pytest.mark.parametrize(
    "change, reason",
    [
        ({"network": "cd" * 32}, "its engines of the refiner are of other weights (test weights)"),
        ({"precision": "fp32"}, "refiner batch 2 fp32 is not among its engines"),
        ({"shapes": dict.fromkeys(KEY.shapes, (4, 6, 160, 160))}, "refiner batch 4 fp16 is not among its engines"),
        ({"role": "scorer"}, "scorer batch 2 fp16 is not built yet"),
    ],
)
def test_an_engine_of_something_else_is_not_used_and_lives_beside(change, reason, tmp_path):
    folder = EngineFolder(tmp_path)
    stored(folder)
    other = dataclasses.replace(KEY, **change)
    assert folder.load(other, RTX) is None and folder.reason == reason
    stored(folder, other, engine=b"other")
    assert folder.load(KEY, RTX)[1] == ENGINE and folder.load(other, RTX)[1] == b"other"


@pytest.mark.parametrize(
    "damage",
    [
        lambda data: data[:-5],
        lambda data: data[:-1] + bytes([data[-1] ^ 1]),
        lambda data: data + b"x",
        lambda data: b"",
    ],
    ids=["truncated", "bit flip", "longer", "empty"],
)
def test_a_damaged_engine_is_noticed(damage, tmp_path):
    folder = EngineFolder(tmp_path)
    path = tmp_path / stored(folder).file
    path.write_bytes(damage(path.read_bytes()))
    assert folder.load(KEY, RTX) is None and "damaged" in folder.reason
    path.unlink()
    assert folder.load(KEY, RTX) is None and "cannot be read" in folder.reason
    stored(folder)
    assert folder.load(KEY, RTX)[1] == ENGINE


@pytest.mark.parametrize(
    "text, reason",
    [
        ("{", "cannot be read"),
        ("[]", "is no manifest of engines"),
        ('{"format": 7, "engines": []}', "has format 7, 1 is known"),
        ('{"format": 1, "engines": [{"file": "x"}]}', "is no manifest of engines"),
    ],
)
def test_a_damaged_manifest_is_said_with_its_path(text, reason, tmp_path):
    folder = EngineFolder(tmp_path)
    (tmp_path / MANIFEST).write_text(text)
    with pytest.raises(ManifestError, match=reason) as caught:
        folder.entries()
    assert str(tmp_path / MANIFEST) in str(caught.value)
    assert folder.load(KEY, RTX) is None and reason in folder.reason, "the node goes on and says so"


def test_a_write_that_fails_leaves_what_was_there(tmp_path, monkeypatch):
    folder = EngineFolder(tmp_path)
    entry = stored(folder)

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        stored(folder, engine=b"new")
    monkeypatch.undo()
    assert folder.load(KEY, RTX) == (entry, ENGINE)
    assert {p.name for p in tmp_path.iterdir()} == {entry.file, MANIFEST, ".lock"}, "nothing half written"


def test_several_writers_lose_nothing(tmp_path):
    keys = [dataclasses.replace(KEY, shapes={"rendered": (n, 6, 8, 8)}) for n in range(1, 9)]
    threads = [threading.Thread(target=stored, args=(EngineFolder(tmp_path), key)) for key in keys]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    folder = EngineFolder(tmp_path)
    assert all(folder.load(key, RTX) is not None for key in keys)


class Source:
    """Builds engines that say for which targets they are."""

    role, about = "refiner", "test weights"

    def __init__(self, network: str = "ab" * 32) -> None:
        self.network = network
        self.asked: list[tuple[int, list[str]]] = []

    def key(self, batch, precision):
        return EngineKey(self.role, self.network, precision, {"rendered": (batch, 6, 8, 8)})

    def build(self, batch, precision, library, targets):
        self.asked.append((batch, list(targets)))
        return f"{batch} {targets}".encode()


LIBRARY = Library("tensorrt_rtx", None, "test")


def test_a_folder_is_completed_not_built_anew(tmp_path):
    source = Source()

    def build(targets, batches=(1, 4)):
        wanted = [Wanted(source, batch, "fp16") for batch in batches]
        return build_folder(tmp_path, wanted, LIBRARY, RTX, targets)

    first = build(["sm_86", "sm_89"])
    assert source.asked == [(1, ["sm_86", "sm_89"]), (4, ["sm_86", "sm_89"])], "one file for both targets"
    assert [b.targets for b in first] == [("sm_86", "sm_89")] * 2 and all(b.seconds > 0 for b in first)
    again = build(["sm_89"])
    assert len(source.asked) == 2 and [b.seconds for b in again] == [0, 0], "nothing is rebuilt"
    build(["sm_89", "sm_120"], batches=(4, 8))
    assert source.asked[2:] == [(4, ["sm_120"]), (8, ["sm_89", "sm_120"])], "what is missing"
    manifest = json.loads((tmp_path / MANIFEST).read_text())["engines"]
    assert {e["file"] for e in manifest} == {p.name for p in tmp_path.glob("*.engine")}
    source.network = "cd" * 32
    build(["sm_89"], batches=(1,))
    assert source.asked[-1] == (1, ["sm_89"]), "of other weights: beside those that were there"
    assert len(list(tmp_path.glob("*.engine"))) == 5


def test_a_disk_that_is_full_is_one_sentence(tmp_path, monkeypatch):
    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(
        EngineBuildError, match=r"refiner batch 1 fp16, 0 MB, cannot be written to .*: No space left"
    ) as e:
        build_folder(tmp_path, [Wanted(Source(), 1, "fp16")], LIBRARY, RTX, ["sm_89"])
    assert "MB are free" in str(e.value)


def test_targets_are_read_as_people_write_them():
    class Known(Library):
        targets = ("sm_75", "sm_89", "sm_120")
        title = "TensorRT for RTX 1.7.1"

    library = Known("tensorrt_rtx", None)
    assert parse_targets("sm_89, 12.0,SM75,sm_89", library) == ["sm_89", "sm_120", "sm_75"]
    for text in ("sm_90", "9.0", "hopper"):
        with pytest.raises(EngineBuildError, match="has no engines for it; its targets are sm_75, sm_89, sm_120"):
            parse_targets(text, library)


def test_driver_version_is_told_or_unknown():
    version = driver_version()
    assert version == "unknown" or version[0].isdigit() or version.startswith("cuda-")

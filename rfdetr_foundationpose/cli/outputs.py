"""Where a command writes: checked before it runs, and never over what it did not write itself.

A folder of outputs holds a marker, which lists the files and folders in it that a command wrote.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import typer

from ..errors import UserError
from ..interrupts import begin

MARKER = ".rfdetr-foundationpose.json"
PROGRAM = "rfdetr-foundationpose"
PROBE_BYTES = 1 << 16
"""So many bytes must fit on a disk before a run begins."""

AlsoJson = Annotated[Path | None, typer.Option("--json", help="Also write the result to this file.")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Write even over what this command did not write.")]


_made: list[tuple[Path, list[Path]]] = []
"""Folders that this run made for its outputs, each with those above it that it made, innermost first."""


_claimed: list[Path] = []
"""Where this run writes, the last one last: what a system error that names no file is about."""


@dataclass
class Outputs:
    """The folder and the JSON file that a command may write to.

    Made by :func:`claim`. command: the words that name it. json_file: where its figures go besides; None: nowhere.
    """

    command: str
    folder: Path | None = None
    json_file: Path | None = None
    overwrite: bool = False
    _owned: dict[str, str] = field(default_factory=dict)

    def claim(self, names: Iterable[str]) -> None:
        """More names in the folder, which are known only now. Raises UserError when one is not this command's."""
        assert self.folder is not None
        names = list(names)
        foreign = [n for n in names if self._owned.get(n) != self.command and os.path.lexists(self.folder / n)]
        if foreign and not self.overwrite:
            raise UserError(_refusal(self.folder, foreign, self.command))
        self._owned |= dict.fromkeys(names, self.command)
        _write_marker(self.folder, self._owned)

    def remove_recording(self, name: str) -> Path:
        """Make room for a recording of that name, which the command wrote before; nothing else is removed. Returns its path.

        Raises UserError when it holds anything but a recording.
        """
        assert self.folder is not None
        path = self.folder / name
        if path.is_dir() and not path.is_symlink():
            files = list(path.iterdir())
            foreign = [f.name for f in files if f.name != "metadata.yaml" and f.suffix not in (".mcap", ".db3")]
            if foreign or any(not f.is_file() for f in files):
                raise UserError(_refusal(path, foreign or [f.name for f in files], self.command))
            for file in files:
                file.unlink()
            path.rmdir()
        elif os.path.lexists(path):
            raise UserError(_refusal(self.folder, [name], self.command))
        return path

    def stamped(self, tree: Mapping[str, Any]) -> dict[str, Any]:
        """A result with what tells this command later that the file is its own."""
        return {"written_by": f"{PROGRAM} {self.command}", **tree}

    def write(self, tree: Mapping[str, Any], name: str | None = "result.json") -> Path:
        """The result to the JSON file, or without one to ``name`` in the folder; strict JSON. Returns where it went."""
        from ..replay.result import write_json

        path = self.json_file
        if path is None:
            assert self.folder is not None and name is not None
            path = self.folder / name
        write_json(path, self.stamped(tree))
        return path


def claim(
    command: str,
    folder: Path | None = None,
    names: Sequence[str] = (),
    json_file: Path | None = None,
    *,
    overwrite: bool = False,
) -> Outputs:
    """Check that a command may and can write, before it runs, and mark the folder.

    names: files and folders that it will write in ``folder``. A folder that is not there is made; one that holds things
    must carry the marker, and what has one of ``names`` must have been written by the same command. The JSON file may
    exist when it says that it is this command's. Raises UserError that names --out, --json and --overwrite.
    """
    begin()
    outputs = Outputs(command, folder, json_file, overwrite)
    _claimed.extend(p for p in (json_file, folder) if p is not None)
    if json_file is not None:
        _check_json(json_file, command, overwrite)
    if folder is not None:
        there = _check_folder(folder, command, overwrite)
        outputs._owned = _read_marker(folder) if there else {}
        outputs.claim(names)
    return outputs


def _check_folder(folder: Path, command: str, overwrite: bool) -> bool:
    """Whether the folder was there."""
    absent: list[Path] = []
    try:
        absent = [p for p in (folder, *folder.parents) if not p.exists()]
        folder.mkdir(parents=True, exist_ok=True)
        _probe(folder)
        entries = sorted(f.name for f in folder.iterdir() if not f.name.startswith(MARKER))
    except FileExistsError as error:
        raise UserError(f"--out {folder} or a part of it is a file; name a folder by --out") from error
    except OSError as error:
        _remove_empty(absent)
        raise UserError(f"--out {folder} cannot be written: {error.strerror or error}; name another folder") from error
    if entries and not (folder / MARKER).is_file() and not overwrite:
        raise UserError(_refusal(folder, entries, command))
    if absent:
        _made.append((folder, absent))
    return not absent


def named(error: Exception) -> Exception:
    """The error; one of the system that names no file, such as a full disk, gets the name of where this run writes."""
    if isinstance(error, OSError) and error.filename is None and error.errno is not None and _claimed:
        return OSError(error.errno, error.strerror, str(_claimed[-1]))
    return error


def forget_empty() -> None:
    """Remove the folders that this run made and wrote nothing to: a command that refuses leaves nothing behind."""
    for folder, absent in _made:
        with contextlib.suppress(OSError):
            if [f.name for f in folder.iterdir()] == [MARKER]:
                (folder / MARKER).unlink()
        _remove_empty(absent)
    _made.clear()
    _claimed.clear()


def _remove_empty(folders: Sequence[Path]) -> None:
    with contextlib.suppress(OSError):
        for folder in folders:
            folder.rmdir()


def _refusal(folder: Path, names: Sequence[str], command: str) -> str:
    shown = ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
    return (
        f"{folder} holds {shown}, which {command} did not write; name another folder by --out, or let it write there by "
        "--overwrite"
    )


def _check_json(path: Path, command: str, overwrite: bool) -> None:
    try:
        if path.is_dir():
            raise UserError(f"--json {path} is a folder; name a file")
        if path.exists() and not path.is_file():
            return  # a pipe or a device
        if path.is_file():
            if not overwrite and not _is_own(path, command):
                raise UserError(
                    f"--json {path} was not written by {command}; name another file by --json, or replace it by --overwrite"
                )
            with path.open("r+b"):
                pass
        path.parent.mkdir(parents=True, exist_ok=True)
        _probe(path.parent)
    except FileExistsError as error:
        raise UserError(f"--json {path}: {path.parent} or a part of it is a file, not a folder") from error
    except OSError as error:
        raise UserError(f"--json {path} cannot be written: {error.strerror or error}; name another file") from error


def _is_own(path: Path, command: str) -> bool:
    """Whether the file begins as this command's results do, or is empty."""
    with path.open("rb") as file:
        head = file.read(200).decode(errors="replace")
    return not head or head.lstrip("{ \n").startswith(f'"written_by": "{PROGRAM} {command}"')


def _probe(folder: Path) -> None:
    """Raises OSError when nothing can be written there, or the disk is full."""
    with tempfile.NamedTemporaryFile(prefix=MARKER, dir=folder) as file:
        file.write(bytes(PROBE_BYTES))
        file.flush()
        try:
            os.fsync(file.fileno())
        except OSError as error:
            if error.errno not in (errno.EINVAL, errno.ENOSYS):  # file systems that cannot
                raise


def _read_marker(folder: Path) -> dict[str, str]:
    try:
        files = json.loads((folder / MARKER).read_text())["files"]
        return {str(name): str(command) for name, command in files.items()}
    except (OSError, ValueError, LookupError, AttributeError, TypeError):
        return {}


def _write_marker(folder: Path, owned: Mapping[str, str]) -> None:
    part = folder / f"{MARKER}.{os.getpid()}"
    part.write_text(
        json.dumps({"about": f"what {PROGRAM} wrote here, and may replace", "files": dict(owned)}, indent=1)
    )
    part.replace(folder / MARKER)


def fresh(folder: Path, *, absent: bool = False) -> None:
    """Check that a data set can be written to a folder, which must not hold anything yet, or with ``absent`` not be there.

    Raises UserError that names --out.
    """
    begin()
    _claimed.append(folder)
    try:
        if os.path.lexists(folder) and (absent or not folder.is_dir() or any(folder.iterdir())):
            raise UserError(f"{folder} exists already; name another folder by --out, or delete it")
        parent = folder if folder.is_dir() else folder.parent
        parent.mkdir(parents=True, exist_ok=True)
        _probe(parent)
    except FileExistsError as error:
        raise UserError(f"a part of --out {folder} is a file; name another folder by --out") from error
    except OSError as error:
        raise UserError(f"--out {folder} cannot be written: {error.strerror or error}; name another folder") from error

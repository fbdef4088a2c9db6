"""Kernels that TensorRT for RTX compiled on this GPU, kept beside the engine for the next start."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

from ..resources import cache_directory, write_whole

logger = logging.getLogger(__name__)

MAGIC = b"rfdetr_foundationpose compiled kernels 1\n"


class Kernels(Protocol):
    """The library's IRuntimeCache."""

    def serialize(self) -> bytes: ...
    def deserialize(self, blob: bytes, /) -> bool:
        """Whether they are for this GPU."""


class KernelCache:
    """The file of one engine's kernels. file: beside the engine; where that folder cannot be written, the user's cache has it.

    Kernels are code that runs on the GPU, so the library is only given whole files that this class wrote: they start with MAGIC
    and the SHA-256 of the rest. No method raises OSError: without a file, kernels are compiled.
    """

    def __init__(self, kernels: Kernels, file: Path, label: str) -> None:
        self._kernels, self._file, self._label = kernels, file, label
        self._kept = b""

    def load(self) -> bool:
        """Load the kernels of an earlier start. Returns whether there were any for this GPU."""
        for path in self._files():
            try:
                blob = unpack(path.read_bytes())
            except OSError:
                continue
            if blob is None:
                logger.info("%s: %s is damaged, or no file of compiled kernels; compiling anew", self._label, path)
            elif self._kernels.deserialize(blob):
                self._kept = blob
                return True
            else:
                logger.info("%s: the compiled kernels in %s are of another machine; compiling anew", self._label, path)
        return False

    def keep(self) -> Path | None:
        """Write the kernels if they changed. Returns the file, None where none was written."""
        blob = bytes(self._kernels.serialize())
        if blob == self._kept:
            return None
        for path in self._files():
            try:
                path.parent.mkdir(parents=True, exist_ok=True)
                write_whole(path, pack(blob))
            except OSError as error:
                logger.info("%s: compiled kernels are not kept in %s: %s", self._label, path.parent, error)
            else:
                self._kept = blob
                return path
        return None

    def _files(self) -> Iterator[Path]:
        yield self._file
        try:
            yield cache_directory() / "kernels" / self._file.name
        except OSError as error:
            logger.info("%s: there is no cache for compiled kernels: %s", self._label, error)


def pack(blob: bytes) -> bytes:
    """The content of a file for these kernels."""
    return MAGIC + hashlib.sha256(blob).digest() + blob


def unpack(data: bytes) -> bytes | None:
    """The kernels in a file's content, None where this class did not write it or it is damaged."""
    begin = len(MAGIC) + hashlib.sha256().digest_size
    blob = data[begin:]
    return blob if data[:begin] == MAGIC + hashlib.sha256(blob).digest() else None

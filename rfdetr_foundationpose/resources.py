"""Where the files that ship with the package are (source checkout, pip install or ament workspace), where it may cache, and how
files appear there."""

from __future__ import annotations

import contextlib
import functools
import os
import stat
import sys
import sysconfig
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

PACKAGE = "rfdetr_foundationpose"
UNFINISHED = ".writing-"
"""Files that are being written are called so."""
ABANDONED_SECONDS = 3600.0


def _roots() -> Iterator[Path]:
    package = Path(__file__).resolve().parent
    yield package.parent  # source checkout or editable install
    for prefix in os.environ.get("AMENT_PREFIX_PATH", "").split(os.pathsep):
        if prefix:
            yield Path(prefix) / "share" / PACKAGE
    for parent in package.parents:  # <prefix>/lib/pythonX.Y/site-packages/<package>, whichever prefix that is
        if parent.name == "lib":
            yield parent.parent / "share" / PACKAGE
    yield Path(sysconfig.get_path("data")) / "share" / PACKAGE
    yield Path(sys.prefix) / "share" / PACKAGE


def share_dir() -> Path:
    """The folder that holds ``config/`` and ``models/``. Raises FileNotFoundError that lists where it was looked for."""
    tried = []
    for root in _roots():
        # A bare "config" or "models" folder in site-packages may be somebody else's.
        if (root / "config" / "objects.yaml").is_file() and (root / "models").is_dir():
            return root
        tried.append(str(root))
    raise FileNotFoundError(
        f"the data files of {PACKAGE} (config/, models/) are in none of: {', '.join(dict.fromkeys(tried))}; "
        "install the package with pip or colcon, or run from its checkout"
    )


def config_dir() -> Path:
    """Shipped YAML files."""
    return share_dir() / "config"


def models_dir() -> Path:
    """Shipped weights and the demo's meshes."""
    return share_dir() / "models"


def default_objects_file() -> Path:
    """config/objects.yaml: the demo's objects. Raises FileNotFoundError when nothing is installed."""
    return config_dir() / "objects.yaml"


def cache_root() -> Path:
    """$XDG_CACHE_HOME, by default ~/.cache; where that cannot be written (a service, a container's user without a home), a
    folder of this user alone under the temporary directory."""
    wished = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache")
    try:
        wished = wished.expanduser()
        wished.mkdir(parents=True, exist_ok=True)
        if os.access(wished, os.W_OK):
            return wished
    except (OSError, RuntimeError):
        pass
    return _own_folder()


@functools.cache
def _own_folder() -> Path:
    """What is cached is run later, so nobody else may have written there."""
    path = Path(tempfile.gettempdir()) / f"{PACKAGE}-{os.getuid()}"
    try:
        path.mkdir(mode=0o700)
    except FileExistsError:
        found = path.lstat()
        if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid() or found.st_mode & 0o022:
            return Path(tempfile.mkdtemp(prefix=f"{PACKAGE}-"))
    return path


def cache_directory() -> Path:
    """Where exported ONNX files, engines and what was found out about them live, in ``cache_root``."""
    directory = cache_root() / PACKAGE
    directory.mkdir(parents=True, exist_ok=True)
    return directory


def write_whole(path: Path, data: bytes) -> None:
    """So that a reader sees the old file or the whole new one, also when the process is killed."""
    descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=UNFINISHED)
    try:
        with os.fdopen(descriptor, "wb") as f:
            f.write(data)
            f.flush()
            os.fsync(f.fileno())
        Path(temporary).chmod(0o644)
        Path(temporary).replace(path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def remove_unfinished(directory: Path) -> None:
    """Delete temporary files that ``write_whole`` left because its process was killed: those unchanged for an hour."""
    for path in directory.glob(f"{UNFINISHED}*"):
        with contextlib.suppress(OSError):  # another process does the same, or the folder is not ours to change
            if time.time() - path.stat().st_mtime > ABANDONED_SECONDS:
                path.unlink()

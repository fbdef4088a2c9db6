"""Where the files that ship with the package are: in a source checkout, a pip install or an ament workspace."""

from __future__ import annotations

import os
import sys
import sysconfig
from collections.abc import Iterator
from pathlib import Path

PACKAGE = "rfdetr_foundationpose"


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

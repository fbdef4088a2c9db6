"""What the settings say of engines."""

from __future__ import annotations

from pathlib import Path

from ..accel.base import EngineOptions
from ..config import Config, ConfigError


def engine_options(config: Config) -> EngineOptions:
    """Of the backends that run ONNX files and engines. Raises ConfigError for a folder that does not exist."""
    folder = Path(config.pose.engines).expanduser() if config.pose.engines else None
    if folder is not None and not folder.is_dir():
        raise ConfigError(
            f"pose.engines={config.pose.engines} is no folder; make it with rfdetr-foundationpose build-engines --out"
        )
    return EngineOptions(folder, config.tensorrt_library)

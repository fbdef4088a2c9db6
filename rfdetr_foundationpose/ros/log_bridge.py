"""What the package logs, through the node's logger: in the terminal, on /rosout, and by the node's log level."""

from __future__ import annotations

import logging
from typing import Any

from ..resources import PACKAGE


class LogBridge(logging.Handler):
    """From Python's logging, under the package's name, to an rclpy logger."""

    def __init__(self, logger: Any) -> None:
        super().__init__(logging.INFO)
        self._logger = logger

    def open(self) -> None:
        """Take over what is logged from now on."""
        source = logging.getLogger(PACKAGE)
        source.addHandler(self)
        source.setLevel(logging.INFO)

    def close(self) -> None:
        """Take over nothing more."""
        logging.getLogger(PACKAGE).removeHandler(self)
        super().close()

    def emit(self, record: logging.LogRecord) -> None:
        text = record.getMessage()
        # One line for each severity: rclpy refuses a line that logs with another severity than before.
        if record.levelno >= logging.ERROR:
            self._logger.error(text)
        elif record.levelno >= logging.WARNING:
            self._logger.warning(text)
        else:
            self._logger.info(text)

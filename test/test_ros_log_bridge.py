"""What the package logs reaches the node's logger with its severity."""

from __future__ import annotations

import logging

import pytest

rclpy_logging = pytest.importorskip("rclpy.logging")

from rfdetr_foundationpose.ros.log_bridge import LogBridge  # noqa: E402

LOGGER = logging.getLogger("rfdetr_foundationpose.somewhere")


def test_severities_take_turns_on_the_real_logger(capfd):
    """rclpy refuses a line of code that logs with another severity than before: every record comes from the same one."""
    bridge = LogBridge(rclpy_logging.get_logger("bridge_test"))
    bridge.open()
    try:
        for _ in range(2):
            LOGGER.info("weights of %s", "mug")
            LOGGER.warning("%s failed", "tensorrt")
            LOGGER.error("%d%% lost", 100)
            LOGGER.debug("not for users")
    finally:
        bridge.close()
    LOGGER.warning("after the end")
    lines = "".join(capfd.readouterr()).splitlines()
    shown = [
        (severity, line.rsplit(": ", 1)[-1])
        for line in lines
        for severity in ("INFO", "WARN", "ERROR")
        if severity in line
    ]
    assert shown == [("INFO", "weights of mug"), ("WARN", "tensorrt failed"), ("ERROR", "100% lost")] * 2

"""Images of messages, on the device where they already are; cv_bridge for the encodings that ``camera.images`` does not
know, where it is installed."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..camera import compressed, images
from ..config import InputConfig
from ..types import Image, InputError
from . import buffers, compat

# Encodings whose conversion was said.
_said: set[str] = set()


class EarlyConversion:
    """The early image that was converted last, and what was made of it. For one thread."""

    def __init__(self) -> None:
        self._message: Any = None
        self._made: dict[str, Any] = {}

    def convert(self, message: Any, is_depth: bool, depth_unit: float, logger: Any) -> dict[str, Any]:
        """As "rgb" (H, W, 3), or "depth" (H, W) and its "depth_scale", of a message in the CPU's memory. Raises InputError."""
        if is_depth:
            depth, scale = image_to_depth(message, depth_unit, logger)
            made = {"depth": depth, "depth_scale": scale}
        else:
            made = {"rgb": image_to_rgb(message, logger)}
        self._message, self._made = message, made
        return made

    def take(self, rgb: Any, depth: Any) -> dict[str, Any]:
        """What was made of one of these messages, once; nothing where it was of another one."""
        (message, made), self._message, self._made = (self._message, self._made), None, {}
        return made if message is not None and (message is rgb or message is depth) else {}


def pair_to_images(
    rgb: Any,
    depth: Any,
    settings: InputConfig,
    device: str,
    leases: ExitStack,
    logger: Any,
    early: Mapping[str, Any] = MappingProxyType({}),
) -> tuple[Image, Image, float]:
    """Colour (H, W, 3) uint8, depth (H, W), and the depth's metres per unit, of two messages as they came.

    device: of the pipeline. What is in its memory stays there, and is valid until ``leases`` is closed. early: "rgb", or "depth" and
    "depth_scale", where ``EarlyConversion`` made them of one of these messages. Raises InputError.
    """
    unit = settings.depth_unit
    if settings.image_transport == "compressed":
        color = compressed.compressed_to_rgb(buffers.on_host(rgb))
        return (color, *compressed.compressed_to_depth(buffers.on_host(depth), unit))
    target = "cpu" if settings.rectify else device  # lenses are undone on the CPU
    found = early["rgb"] if "rgb" in early else buffers.on_device(rgb, target, leases)
    color = image_to_rgb(buffers.on_host(rgb), logger) if found is None else found
    if "depth" in early:
        return color, early["depth"], early["depth_scale"]
    found = buffers.on_device(depth, target, leases)
    if found is not None:
        return color, found, (1.0 if depth.encoding == "32FC1" else unit)
    return (color, *image_to_depth(buffers.on_host(depth), unit, logger))


def image_to_rgb(message: Any, logger: Any) -> NDArray[np.uint8]:
    """(H, W, 3) uint8 RGB of a sensor_msgs/Image. Raises InputError."""
    try:
        return images.image_to_rgb(message)
    except InputError as error:
        return np.asarray(_converted(message, "rgb8", error, logger), np.uint8)


def image_to_depth(message: Any, depth_unit: float, logger: Any) -> tuple[NDArray[Any], float]:
    """Depth as camera.images.image_to_depth gives it. Raises InputError."""
    try:
        return images.image_to_depth(message, depth_unit)
    except InputError as error:
        depth = np.asarray(_converted(message, "passthrough", error, logger))
        if depth.ndim != 2 or depth.dtype.kind not in "uf":
            raise error from None
        if depth.dtype == np.uint16:
            return depth, depth_unit
        return depth.astype(np.float32), (1.0 if depth.dtype.kind == "f" else depth_unit)


def _converted(message: Any, encoding: str, error: InputError, logger: Any) -> Any:
    """What cv_bridge makes of it; raises ``error`` where that is not installed, cannot either, or the message is damaged."""
    if error.kind != "bad_encoding" or compat.cv_bridge is None:
        raise error
    try:
        converted = compat.cv_bridge.CvBridge().imgmsg_to_cv2(message, desired_encoding=encoding)
    except Exception as failure:  # CvBridgeError, and what numpy and OpenCV raise of a damaged message
        raise InputError(error.kind, f"{error}; cv_bridge cannot either: {images.first_line(failure)}") from None
    if message.encoding not in _said:
        _said.add(message.encoding)
        logger.info(f"images of encoding {message.encoding} are converted by cv_bridge")
    return converted

"""cv_bridge for the encodings that ``camera.images`` does not know, where it is installed; said once for each."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..camera import images
from ..types import InputError
from . import compat

_said: set[str] = set()


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

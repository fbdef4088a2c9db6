"""sensor_msgs/CameraInfo as intrinsics."""

from __future__ import annotations

from typing import Any

from ..types import CameraIntrinsics


def camera_info_to_intrinsics(msg: Any) -> CameraIntrinsics:
    """Intrinsics of the rectified image: P where the driver fills it, else K; region of interest and binning applied.

    Raises InputError.
    """
    P, K = list(msg.p), list(msg.k)
    fx, cx, fy, cy = (P[0], P[2], P[5], P[6]) if len(P) == 12 and P[0] > 0 else (K[0], K[2], K[4], K[5])
    width, height = msg.roi.width or msg.width, msg.roi.height or msg.height
    bx, by = max(int(msg.binning_x), 1), max(int(msg.binning_y), 1)
    return CameraIntrinsics(
        fx / bx,
        fy / by,
        (cx - msg.roi.x_offset) / bx,
        (cy - msg.roi.y_offset) / by,
        int(width) // bx,
        int(height) // by,
    )

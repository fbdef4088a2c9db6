"""Batches of images on a device as what detector and estimator take: frames on the host."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from ..types import CameraIntrinsics, Frame

if TYPE_CHECKING:
    from ..train.coco_source import CocoBatch
    from .scene import SceneBatch


def host_frames(batch: SceneBatch | CocoBatch, first: int) -> list[Frame]:
    """The images of a batch, stamped ``first``, ``first`` + 1, ...; depth in metres."""
    rgb, depth = (t.cpu().numpy() for t in (batch.rgb, batch.depth))
    frames = []
    for i in range(len(rgb)):
        height, width = depth[i].shape
        fx, fy, cx, cy = (float(v) for v in batch.camera[i])
        camera = CameraIntrinsics(fx, fy, cx, cy, width, height)
        frames.append(Frame(first + i, "camera", rgb[i], depth[i].astype(np.float32, copy=False), 1.0, camera))
    return frames


def instance_pixels(batch: SceneBatch | CocoBatch) -> NDArray[np.int64]:
    """(N, M) visible pixels of each instance."""
    slots = batch.label.shape[1]
    ids = batch.instance.cpu().numpy() + 1
    return np.stack([np.bincount(image.ravel(), minlength=slots + 1)[1 : slots + 1] for image in ids])

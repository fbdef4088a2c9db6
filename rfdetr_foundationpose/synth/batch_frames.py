"""Batches of images on a device as what detector and estimator take: frames on the host."""

from __future__ import annotations

from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from ..types import CameraIntrinsics, Frame


class ImageBatch(Protocol):
    """What rendered scenes and photographs have in common: N images of up to M instances.

    rgb: (N, H, W, 3) uint8. depth: (N, H, W) metres. instance: (N, H, W), -1 where there is none. label: (N, M).
    camera: (N, 4) fx, fy, cx, cy in pixels.
    """

    @property
    def rgb(self) -> Tensor: ...
    @property
    def depth(self) -> Tensor: ...
    @property
    def instance(self) -> Tensor: ...
    @property
    def label(self) -> Tensor: ...
    @property
    def camera(self) -> NDArray[np.float64]: ...


def host_frames(batch: ImageBatch, first: int) -> list[Frame]:
    """The images of a batch, stamped ``first``, ``first`` + 1, ...; depth in metres."""
    rgb, depth = (t.cpu().numpy() for t in (batch.rgb, batch.depth))
    frames = []
    for i in range(len(rgb)):
        height, width = depth[i].shape
        fx, fy, cx, cy = (float(v) for v in batch.camera[i])
        camera = CameraIntrinsics(fx, fy, cx, cy, width, height)
        frames.append(Frame(first + i, "camera", rgb[i], depth[i].astype(np.float32, copy=False), 1.0, camera))
    return frames


def instance_pixels(batch: ImageBatch) -> NDArray[np.int64]:
    """(N, M) visible pixels of each instance."""
    slots = batch.label.shape[1]
    ids = batch.instance.cpu().numpy() + 1
    return np.stack([np.bincount(image.ravel(), minlength=slots + 1)[1 : slots + 1] for image in ids])

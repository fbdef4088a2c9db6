"""A camera matrix of another resolution, said once for each size of images."""

from __future__ import annotations

import logging

from ..types import CameraIntrinsics

logger = logging.getLogger(__name__)


class CameraDoubt:
    """Looks at the camera of every frame."""

    def __init__(self) -> None:
        self._last: CameraIntrinsics | None = None
        self._said: set[tuple[int, int]] = set()

    def look(self, camera: CameraIntrinsics) -> None:
        """Log what is doubtful about ``camera``, a warning."""
        if camera is self._last or camera == self._last:
            return
        self._last = camera
        size = (camera.width, camera.height)
        if size not in self._said and camera.doubt:
            self._said.add(size)
            logger.warning("%s", camera.doubt)

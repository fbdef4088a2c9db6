"""A mesh of USD as triangles, and how values that USD gives for polygons, corners or points become those of the triangles."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from .polygons import triangulate
from .raw import MeshError, RawMesh


class Part:
    """A mesh of the stage, and how its values become those of faces.

    triangles: (F, 3) positions in the corners of the polygons. polygon: (F,) which polygon. count: of polygons.
    """

    def __init__(
        self, vertices: NDArray[np.float64], counts: NDArray[np.integer], corners: NDArray[np.integer]
    ) -> None:
        if len(corners) != counts.sum() or (len(corners) and not 0 <= corners.min() <= corners.max() < len(vertices)):
            raise MeshError("a face of it asks for a vertex that is not there; is it damaged?")
        self.count = len(counts)
        self.triangles, self.polygon = triangulate(counts, corners, vertices)
        self.mesh = RawMesh(vertices, corners.astype(np.int32)[self.triangles], [])

    def without(self, holes: NDArray[np.integer]) -> None:
        """Leave out polygons."""
        kept = ~np.isin(self.polygon, holes)
        self.triangles, self.polygon = self.triangles[kept], self.polygon[kept]
        self.mesh.keep_faces(kept)

    def index(self, interpolation: str, count: int) -> NDArray[np.int32] | None:
        """(F, 3) which of ``count`` values each corner of each face has; None where they are too few."""
        if interpolation in ("vertex", "varying"):
            found = self.mesh.faces
        elif interpolation == "faceVarying":
            found = self.triangles
        else:
            each = self.polygon if interpolation == "uniform" else np.zeros_like(self.polygon)
            found = np.repeat(each[:, None], 3, 1)
        return None if len(found) and int(found.max()) >= count else np.asarray(found, np.int32)

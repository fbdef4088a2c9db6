"""A mesh with as many faces as one asks for."""

from __future__ import annotations

import numpy as np
import trimesh

FEWEST_FACES = 36


def counted_ring(faces: int) -> trimesh.Trimesh:
    """A ring of 14 cm with coloured vertices and about ``faces`` faces of much the same size. Raises ValueError for fewer than
    FEWEST_FACES."""
    if faces < FEWEST_FACES:
        raise ValueError(f"a ring has at least {FEWEST_FACES} faces, {faces} were asked for")
    around = max(round(np.sqrt(faces / 4)), 3)
    mesh = trimesh.creation.torus(0.05, 0.02, major_sections=round(faces / (2 * around)), minor_sections=around)
    waves = np.sin(np.asarray(mesh.vertices) * 150.0 + [0.0, 1.0, 2.0])
    mesh.visual.vertex_colors = np.uint8(128 + 100 * waves)
    return mesh

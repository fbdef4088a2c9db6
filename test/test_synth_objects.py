"""Procedural objects: sizes, winding, textures, determinism, and symmetries that really hold."""

from __future__ import annotations

import numpy as np
import pytest
import trimesh
from scipy.spatial import cKDTree
from scipy.spatial.transform import Rotation
from trimesh.visual import ColorVisuals, TextureVisuals

from rfdetr_foundationpose.objects import DiscreteSymmetry
from rfdetr_foundationpose.synth.objects import MAX_DIAMETER, MIN_DIAMETER, SynthObject, random_object, vertex_diameter


@pytest.fixture(scope="module")
def objects() -> list[SynthObject]:
    rng = np.random.default_rng(7)
    return [random_object(rng) for _ in range(150)]


def test_size_faces_and_outward_winding(objects: list[SynthObject]) -> None:
    for o in objects:
        assert MIN_DIAMETER * 0.999 <= vertex_diameter(np.asarray(o.mesh.vertices)) <= MAX_DIAMETER * 1.001
        assert 500 <= len(o.mesh.faces) <= 6000
        assert o.mesh.volume > 0, o.name
        assert np.isfinite(o.mesh.vertex_normals).all()
        norms = np.linalg.norm(o.mesh.vertex_normals, axis=1)
        assert np.allclose(norms[np.unique(o.mesh.faces)], 1, atol=1e-3)
    diameters = [vertex_diameter(np.asarray(o.mesh.vertices)) for o in objects]
    assert min(diameters) < 0.06 and max(diameters) > 0.3


def test_textures_are_square_powers_of_two_with_uv_inside(objects: list[SynthObject]) -> None:
    textured = [o for o in objects if isinstance(o.mesh.visual, TextureVisuals)]
    colored = [o for o in objects if isinstance(o.mesh.visual, ColorVisuals)]
    assert len(textured) + len(colored) == len(objects)
    assert len(textured) > 60 and len(colored) > 15
    for o in textured:
        assert o.mesh.visual.material.image.size in {(128, 128), (256, 256)}
        assert o.mesh.visual.uv.shape == (len(o.mesh.vertices), 2)
        assert o.mesh.visual.uv.min() > 0 and o.mesh.visual.uv.max() < 1


def test_same_seed_gives_the_same_object_and_another_seed_another() -> None:
    a, b, c = (random_object(np.random.default_rng(seed)) for seed in (5, 5, 6))
    assert a.name == b.name and np.array_equal(a.mesh.vertices, b.mesh.vertices)
    assert np.array_equal(a.mesh.visual.to_color().vertex_colors, b.mesh.visual.to_color().vertex_colors)
    assert a.mesh.vertices.shape != c.mesh.vertices.shape or not np.allclose(a.mesh.vertices, c.mesh.vertices)


def test_origins_are_also_far_off_centre(objects: list[SynthObject]) -> None:
    offset = [
        np.linalg.norm(o.mesh.bounds.mean(axis=0)) / vertex_diameter(np.asarray(o.mesh.vertices)) for o in objects
    ]
    assert min(offset) < 1e-6 and max(offset) > 1.0


def test_declared_symmetries_hold_for_geometry_and_color() -> None:
    rng = np.random.default_rng(11)
    checked = 0
    while checked < 40:
        o = random_object(rng)
        for s in (*o.discrete, *o.continuous):
            angle = 2 * np.pi / s.fold if isinstance(s, DiscreteSymmetry) else 0.7
            point = np.asarray(s.point)
            turn = Rotation.from_rotvec(np.asarray(s.axis) * angle).as_matrix()
            moved = (o.mesh.vertices - point) @ turn.T + point
            surface, _ = trimesh.sample.sample_surface(o.mesh, 30000, seed=0)
            # Facets of turned objects and the sampling density bound how close a moved vertex can be.
            assert cKDTree(surface).query(moved)[0].max() < 0.03 * vertex_diameter(np.asarray(o.mesh.vertices)), o.name
            if isinstance(o.mesh.visual, ColorVisuals):
                assert len(np.unique(o.mesh.visual.vertex_colors, axis=0)) == 1
            checked += 1

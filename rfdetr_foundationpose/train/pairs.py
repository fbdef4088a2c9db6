"""Training pairs for refiner and scorer, rendered on the device that trains.

Rendered side: the model at a perturbed pose, exactly as the estimator renders it. Observed side: the true pose in a small
random scene (occluders, background, light), seen through the same crop window, with sensor effects of depth and colour.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
import warp as wp
from torch import Tensor

from ..pose import render_kernels
from ..pose.constants import CROP_RATIO, MIN_Z, ROT_NORMALIZER
from ..pose.mesh import ObjectModel
from ..pose.networks import CROP_SIZE, FIRST_PASS_CROP
from ..pose.renderer import NEAR, Views, WarpRenderer
from ..pose.window_kernels import crop_windows
from ..synth import so3
from ..warp_setup import launch
from .object_tables import ObjectTables
from .pair_kernels import render_observed
from .pair_raster_kernels import rasterize_scenes
from .pair_scenes import SceneComposer, SceneEffects, Scenes
from .pair_sensors import Place, SensorEffects, Sensors, Sight

REFINEMENTS, REFINED_SHARE = 2, 0.8
"""The scorer's hypotheses are refined in this many rounds, each of which moves this share of them."""
MIN_DISTANCE = 0.05
LANES = 2
"""So many threads of a GPU share the rows of a face."""

Refine = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]
"""(rendered, observed) -> the refiner's (trans, rot)."""


@dataclass(frozen=True)
class RefinerBatch:
    """rendered, observed: (N, 6, R, R) float32, channels-last. target_trans: (N, 3) in mesh radii.
    target_rot: (N, 3) the network's tanh output. weight: (N,), 0 where the target is hardly seen."""

    rendered: Tensor
    observed: Tensor
    target_trans: Tensor
    target_rot: Tensor
    weight: Tensor


@dataclass(frozen=True)
class ScorerBatch:
    """rendered, observed: (G * L, 6, R, R). error: (G, L) mean surface distance to the truth, in diameters."""

    rendered: Tensor
    observed: Tensor
    error: Tensor
    weight: Tensor


@dataclass(frozen=True)
class Starts:
    """What the refiner is shown. crop_size: rows and columns of its crops. rough, fine: shares of the starts that are off as those
    of a registration are, and as a tracked pose is. moved_on: share that the refiner has moved once already."""

    crop_size: int = CROP_SIZE
    rough: float = 0.3
    fine: float = 0.3
    moved_on: float = 0.4


ALL_STARTS = Starts()
"""A registration's iterations and tracking, so that one network serves both."""
FIRST_STARTS = Starts(FIRST_PASS_CROP, rough=0.8, fine=0.0, moved_on=0.15)
"""The first pass of a registration."""


class PairSampler:
    """Draws batches; deterministic in its seed on one device."""

    def __init__(
        self,
        objects: Sequence[ObjectModel],
        device: torch.device | str,
        seed: int = 0,
        scene: SceneEffects | None = None,
        sensor: SensorEffects | None = None,
        starts: Starts = ALL_STARTS,
    ) -> None:
        self.device = torch.device(device)
        self.starts = starts
        self.renderer = WarpRenderer(objects, device, rays=False)
        self.bank = self.renderer.bank
        self.generator = torch.Generator(device=self.device).manual_seed(seed)
        self.tables = ObjectTables(objects, self.device, seed)
        self.diameter, self.symmetries = self.tables.diameter, self.tables.symmetries
        self.composer = SceneComposer(self.tables, self.generator, scene or SceneEffects())
        self.sensors = Sensors(self.generator, sensor or SensorEffects())

    def refiner_batch(self, n: int, refine: Refine | None = None) -> RefinerBatch:
        """``refine`` moves a share of the starts once: what its errors leave is what it has to put right next."""
        scenes = self.composer.draw(n)
        diameter = self.diameter[scenes.target]
        owner = torch.arange(n, device=self.device)
        guess = self._perturb(scenes.T_cam_obj, diameter)
        m = round(self.starts.moved_on * n)
        if refine is not None and m > 0:
            guess[:m] = self._refined(scenes, guess[:m], owner[:m], diameter[:m], refine)
        truth = self._nearest_look(scenes.T_cam_obj, guess, scenes.target)
        rendered, observed, seen = self._inputs(scenes, guess, owner, "refiner")
        target_trans = (truth[:, :3, 3] - guess[:, :3, 3]) / (diameter[:, None] / 2)
        v = so3.log(guess[:, :3, :3] @ truth[:, :3, :3].mT)
        target_rot = v / ROT_NORMALIZER
        largest = target_rot.abs().amax(-1, keepdim=True)
        target_rot = target_rot * (0.98 / largest.clamp(min=0.98))
        return RefinerBatch(rendered, observed, target_trans, target_rot, (seen > 0.25).float())

    def scorer_batch(self, groups: int, hypotheses: int, refine: Refine | None = None) -> ScorerBatch:
        """``refine`` moves the hypotheses as registration does: those that are wrong then look as right as they can."""
        scenes = self.composer.draw(groups)
        owner = torch.arange(groups, device=self.device).repeat_interleave(hypotheses)
        diameter = self.diameter[scenes.target][owner]
        guess = self._hypotheses(scenes.T_cam_obj[owner], scenes.target[owner])
        if refine is not None:
            for _ in range(REFINEMENTS):
                moved = self._refined(scenes, guess, owner, diameter, refine)
                # Not all, so that groups hold every degree of refinement.
                taken = self._uniform(len(guess)) < REFINED_SHARE
                guess = torch.where(taken[:, None, None], moved, guess)
        rendered, observed, seen = self._inputs(scenes, guess, owner, "scorer")
        points = self.tables.points[scenes.target]
        looks = scenes.T_cam_obj[:, None] @ self.symmetries[scenes.target]
        true_points = torch.einsum("gkij,gpj->gkpi", looks[..., :3, :3], points) + looks[..., None, :3, 3]
        T = guess.reshape(groups, hypotheses, 4, 4)
        guess_points = torch.einsum("glij,gpj->glpi", T[..., :3, :3], points) + T[..., None, :3, 3]
        error = torch.stack(
            [(guess_points - true_points[:, k : k + 1]).norm(dim=-1).mean(-1) for k in range(looks.shape[1])]
        )
        error = error.amin(0) / self.diameter[scenes.target][:, None]
        weight = (seen.reshape(groups, hypotheses).amax(1) > 0.25).float()
        return ScorerBatch(rendered, observed, error, weight)

    def _uniform(self, *shape: int, low: float = 0.0, high: float = 1.0) -> Tensor:
        return torch.empty(shape, device=self.device).uniform_(low, high, generator=self.generator)

    def _normal(self, *shape: int) -> Tensor:
        return torch.randn(*shape, generator=self.generator, device=self.device)

    def _perturb(self, T: Tensor, diameter: Tensor) -> Tensor:
        """Register-like, middling and tracking-like errors.

        A registration begins at the depth of the surface that is seen, which half of its starts have; and beside the object
        where something hides a part of it.
        """
        n = len(T)
        kind = self._uniform(n)
        rough, fine = kind < self.starts.rough, kind > 1 - self.starts.fine
        angle = torch.where(
            rough, self._uniform(n, high=50.0), torch.where(fine, 4.0, 15.0) * self._normal(n).abs()
        ).clamp(max=50.0)
        axis = F.normalize(self._normal(n, 3), dim=-1)
        beside = torch.where(self._uniform(n) < 0.3, 0.18, 0.06)
        xy = torch.where(rough, beside, torch.where(fine, 0.02, 0.05))[:, None] * self._normal(n, 2)
        depth = torch.where(rough, 0.2, torch.where(fine, 0.02, 0.08)) * self._normal(n)
        depth = torch.where(rough & (self._uniform(n) < 0.5), self._uniform(n, low=-0.5, high=0.0), depth)
        toward = T[:, :3, 3] / T[:, 2:3, 3]
        offset = torch.cat([xy, torch.zeros_like(xy[:, :1])], -1) + toward * depth.clamp(-0.6, 0.6)[:, None]
        return self._moved(T, axis * torch.deg2rad(angle)[:, None], offset * diameter[:, None])

    def _hypotheses(self, T: Tensor, target: Tensor) -> Tensor:
        """Some nearly right, some off by up to 30 degrees, many turned anyhow, as after refinement of all 252. T: (n, 4, 4) true
        poses of the objects target (n,)."""
        n, diameter = len(T), self.diameter[target]
        kind = self._uniform(n)
        near, wrong = kind < 0.3, kind > 0.5
        angle = torch.where(near, 3.0 * self._normal(n).abs(), self._uniform(n, high=35.0))
        axis = F.normalize(self._normal(n, 3), dim=-1)
        scale = torch.where(self._uniform(n) < 0.7, 0.015, 0.06) * torch.exp(0.7 * self._normal(n))
        offset = self._normal(n, 3) * torch.where(near, 0.5 * scale, scale)[:, None]
        guess = self._moved(T, axis * torch.deg2rad(angle)[:, None], offset * diameter[:, None])
        # Turns about a principal axis are the mistakes that refinement falls into: half ones, and any of round things.
        axis = self.tables.axes[target, torch.randint(3, (n,), generator=self.generator, device=self.device)]
        round_turn = self._uniform(n, low=np.pi / 6, high=2 * np.pi - np.pi / 6)
        which = self._uniform(n)
        angle = torch.where(which < 0.5, np.pi, torch.where(which < 0.7, np.pi / 2, round_turn))
        turn = so3.exp(axis * angle[:, None])
        flipped = guess.clone()
        flipped[:, :3, :3] = guess[:, :3, :3] @ turn
        center = self.tables.centroid[target]
        shift = center - (turn @ center[..., None])[..., 0]
        flipped[:, :3, 3] += (guess[:, :3, :3] @ shift[..., None])[..., 0]
        anyhow = guess.clone()
        anyhow[:, :3, :3] = so3.random_rotations(n, self.generator, self.device)
        turned = torch.where((self._uniform(n) < 0.3)[:, None, None], anyhow, flipped)
        return torch.where(wrong[:, None, None], turned, guess)

    def _refined(self, scenes: Scenes, guess: Tensor, owner: Tensor, diameter: Tensor, refine: Refine) -> Tensor:
        """The hypotheses after one update; those that it would bring to the camera stay."""
        rendered, observed, _ = self._inputs(scenes, guess, owner, "refiner")
        trans, rot = refine(rendered, observed)
        moved = guess.clone()
        moved[:, :3, 3] += trans.float() * (diameter[:, None] / 2)
        moved[:, :3, :3] = so3.exp(torch.tanh(rot.float()) * ROT_NORMALIZER).mT @ guess[:, :3, :3]
        return torch.where((moved[:, 2, 3] > MIN_DISTANCE)[:, None, None], moved, guess)

    @staticmethod
    def _moved(T: Tensor, rotation: Tensor, offset: Tensor) -> Tensor:
        moved = T.clone()
        moved[:, :3, :3] = so3.exp(rotation) @ T[:, :3, :3]
        moved[:, :3, 3] += offset
        return moved

    def _nearest_look(self, T: Tensor, guess: Tensor, target: Tensor) -> Tensor:
        looks = T[:, None] @ self.symmetries[target]
        closeness = torch.einsum("nkij,nij->nk", looks[..., :3, :3], guess[:, :3, :3])
        return looks[torch.arange(len(T), device=self.device), closeness.argmax(1)]

    def _inputs(self, scenes: Scenes, guess: Tensor, owner: Tensor, role: str) -> tuple[Tensor, Tensor, Tensor]:
        n, r = len(guess), self.starts.crop_size
        diameter = self.diameter[scenes.target][owner].contiguous()
        camera = scenes.camera[owner].contiguous()
        mesh_index = scenes.target[owner].int().contiguous()
        view_scene = owner.int().contiguous()
        guess = guess.contiguous()

        def new(*shape: int) -> Tensor:
            return torch.empty(*shape, dtype=torch.float32, device=self.device)

        window_a, window_b = new(n, 4), new(n, 4)
        sight = Sight(new(n, r, r, 3), *(new(n, r, r) for _ in range(3)))
        packed_a, packed_b = new(n, r, r, 6), new(n, r, r, 6)
        poses = wp.from_torch(guess, dtype=wp.mat44f)
        diameters = wp.from_torch(diameter)
        cameras = wp.from_torch(camera, dtype=wp.vec4f)
        observed_window = wp.from_torch(window_b, dtype=wp.vec4f)
        rendered_window = wp.from_torch(window_a, dtype=wp.vec4f)
        launch(
            crop_windows,
            n,
            [poses, diameters, cameras, CROP_RATIO[role], float(r), observed_window, rendered_window],
            device=self.device,
        )
        scratch = self.renderer.scratch(n, r)
        assert scratch is not None  # without trees for casting rays there always is one
        self.renderer.render_inputs(
            Views(guess, mesh_index, window_a, camera), diameter, MIN_Z[role], packed_a, scratch
        )
        self._see(scenes, view_scene, window_b, sight, scratch)
        self.sensors.observe(
            sight, Place(view_scene, window_b, guess, diameter, scenes.camera, scenes.size), MIN_Z[role], packed_b
        )
        model = (packed_a[..., 5] != 0).float().mean((1, 2))
        visible = sight.target.mean((1, 2)) / model.clamp(min=1e-4)
        return packed_a.permute(0, 3, 1, 2), packed_b.permute(0, 3, 1, 2), visible

    def _see(self, scenes: Scenes, view_scene: Tensor, windows: Tensor, sight: Sight, scratch: Tensor) -> None:
        """Fill ``sight`` with what the windows (n, 4) show of the scenes (n,)."""
        n, r, _ = sight.z.shape
        instances = scenes.tensors["mesh"].shape[1]
        lanes = 1 if self.device.type == "cpu" else LANES
        for start in range(0, n, len(scratch)):
            part = slice(start, min(start + len(scratch), n))
            views = part.stop - part.start
            keys = wp.from_torch(scratch[:views])
            scene = [
                self.bank.data,
                scenes.data,
                wp.from_torch(view_scene[part]),
                wp.from_torch(windows[part], dtype=wp.vec4f),
            ]
            launch(
                rasterize_scenes,
                (views * instances, self.bank.most_faces, lanes),
                [*scene, NEAR, lanes, keys],
                device=self.device,
            )
            launch(
                render_observed,
                render_kernels.tiles(views, r, r),
                [
                    *scene,
                    keys,
                    wp.from_torch(sight.rgb[part], dtype=wp.vec3f),
                    *(wp.from_torch(x[part]) for x in (sight.z, sight.cosine, sight.target)),
                ],
                device=self.device,
            )

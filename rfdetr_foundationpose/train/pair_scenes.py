"""Scenes of training pairs: a target, what stands around and against it, camera and light. All on the device that trains."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from ..synth import so3
from .object_tables import ObjectTables
from .pair_kernels import SceneData, scene_data

INSTANCES = 9
BOXES, CAPSULES = 6, 6
SKIN = ((0.93, 0.76, 0.65), (0.78, 0.57, 0.45), (0.55, 0.37, 0.27), (0.32, 0.21, 0.16))


@dataclass(frozen=True)
class SceneEffects:
    """Probabilities, each of its effect in a scene (or of a neighbour, where it says so); 0 switches it off.

    crowd: neighbours touch the target from every side instead of standing apart. container: of a crowd, the walls of a bin or
    the boards of a shelf around it. hand: fingers around the target. bar: a plain box touching it. cover: something in front
    of the target, touching. own_kind: a neighbour is a copy of the target. same_color: the neighbours have the target's
    colour. resting: the table touches the target instead of lying near it. table_edge: the table ends beside it.
    wall_behind: a wall touches it from behind. glossy: strong highlights.
    """

    crowd: float = 0.6
    container: float = 0.35
    hand: float = 0.12
    bar: float = 0.25
    cover: float = 0.55
    own_kind: float = 0.15
    same_color: float = 0.2
    resting: float = 0.6
    table_edge: float = 0.25
    wall_behind: float = 0.2
    glossy: float = 0.25


TIDY = SceneEffects(0, 0, 0, 0, 0.45, 0, 0, 0, 0, 0, 0)
"""In these scenes little touches the target."""


@dataclass(frozen=True)
class Scenes:
    """data: what kernels read, the memory of ``tensors``, by SceneData's names. target: (n,) object of instance 0. T_cam_obj: (n, 4, 4) its true pose.
    camera: (n, 4) fx, fy, cx, cy. size: (n, 2) width, height of the image."""

    data: SceneData
    tensors: dict[str, Tensor]
    target: Tensor
    T_cam_obj: Tensor
    camera: Tensor
    size: Tensor


@dataclass(frozen=True)
class _Target:
    """The targets of n scenes, around which the rest is put, in the camera's frame. center: (n, 3) m. toward: (n, 3) unit vectors
    from the camera to it. up: (n, 3) unit vectors. points: (n, P, 3) m of its surface, turned as it stands, from its centre.
    diameter: (n,) m."""

    center: Tensor
    toward: Tensor
    up: Tensor
    points: Tensor
    diameter: Tensor


class SceneComposer:
    """Draws scenes of the objects in ``tables``."""

    def __init__(self, tables: ObjectTables, generator: torch.Generator, effects: SceneEffects) -> None:
        self.tables = tables
        self.generator = generator
        self.device = tables.diameter.device
        self.effects = effects
        self.skin = torch.tensor(SKIN, device=self.device)

    def draw(self, n: int) -> Scenes:
        e, uniform = self.effects, self._uniform
        count = len(self.tables.diameter)
        mesh = torch.randint(count, (n, INSTANCES), generator=self.generator, device=self.device)
        copy = uniform(n, INSTANCES) < e.own_kind
        mesh = torch.where(copy, mesh[:, :1], mesh)
        target = mesh[:, 0]
        diameter = self.tables.diameter[mesh]
        camera, size, t = self._viewed(n, diameter[:, 0])
        z = t[:, 2:]
        toward = t / t.norm(dim=-1, keepdim=True)

        rotation = so3.random_rotations(n * INSTANCES, self.generator, self.device).reshape(n, INSTANCES, 3, 3)
        # Copies often stand as the target does, as goods on a shelf.
        aligned = copy & (uniform(n, INSTANCES) < 0.5)
        rotation = torch.where(aligned[..., None, None], rotation[:, :1], rotation)
        points = torch.einsum("nmij,nmpj->nmpi", rotation, self.tables.points[mesh])

        up = F.normalize(
            torch.stack([self._normal(n), -1.5 + self._normal(n), -1.0 + 0.7 * self._normal(n)], -1), dim=-1
        )
        crowded = uniform(n, 1) < e.crowd
        apart, near = self._apart(t, diameter, z), self._touching(t, toward, up, points)
        place = torch.where(crowded[..., None], near, apart)
        covers = uniform(n) < e.cover
        place[:, 0] = self._in_front(t, toward, points, diameter)
        present = torch.where(crowded, uniform(n, INSTANCES - 1) < uniform(n, 1, low=0.3, high=1.0), self._few(n))
        present[:, 0] = covers
        present &= place[..., 2] - diameter[:, 1:] / 2 > 0.05

        pose = torch.eye(4, device=self.device).repeat(n, INSTANCES, 1, 1)
        pose[..., :3, :3] = rotation
        pose[:, 0, :3, 3] = t
        pose[:, 1:, :3, 3] = place
        mesh = torch.cat([target[:, None], torch.where(present, mesh[:, 1:], -1)], 1)
        tint = self._tints(n, target)

        placed = _Target(t, toward, up, points[:, 0], diameter[:, 0])
        plane, table_edge = self._planes(placed)
        box, box_half = self._boxes(placed, crowded[:, 0], table_edge)
        capsule, radius = self._hands(placed)
        color = uniform(n, 2, 2, 3)
        box_color = uniform(n, BOXES, 3)
        box_color[:, 1:5] = torch.where((uniform(n, 1, 1) < 0.7), box_color[:, :1], box_color[:, 1:5])
        hand_color = self.skin[torch.randint(len(SKIN), (n,), generator=self.generator, device=self.device)]
        glove = uniform(n, 1) < 0.2
        hand_color = torch.where(glove, uniform(n, 3), hand_color * uniform(n, 1, low=0.8, high=1.1)).contiguous()
        light = F.normalize(torch.stack([self._normal(n), self._normal(n) - 0.7, self._normal(n) - 0.7], -1), dim=-1)
        highlight = uniform(n, high=0.5) * (uniform(n) < 0.5)
        highlight = torch.where(uniform(n) < e.glossy, uniform(n, low=0.4, high=1.2), highlight)
        level = torch.stack([uniform(n, low=0.35, high=0.9), uniform(n, high=0.8), highlight], -1)
        seed = torch.randint(1 << 30, (n,), generator=self.generator, device=self.device).int()

        drawn = {
            "mesh": mesh.int(),
            "pose": pose,
            "tint": tint,
            "plane": plane,
            "color": color,
            "box": box,
            "box_half": box_half,
            "box_color": box_color,
            "capsule": capsule,
            "capsule_radius": radius,
            "hand_color": hand_color,
            "light": light,
            "level": level,
            "camera": camera,
            "size": size,
            "seed": seed,
        }
        data, tensors = pack(drawn)
        return Scenes(data, tensors, target, pose[:, 0].contiguous(), camera, size)

    def _uniform(self, *shape: int, low: float = 0.0, high: float = 1.0) -> Tensor:
        return torch.empty(shape, device=self.device).uniform_(low, high, generator=self.generator)

    def _normal(self, *shape: int) -> Tensor:
        return torch.randn(*shape, generator=self.generator, device=self.device)

    def _direction(self, *shape: int) -> Tensor:
        return F.normalize(self._normal(*shape, 3), dim=-1)

    def _viewed(self, n: int, diameter: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Camera, image size and target position (n, 3)."""
        uniform = self._uniform
        width = torch.where(uniform(n) < 0.5, 640.0, 1280.0)
        size = torch.stack([width, width * torch.where(uniform(n) < 0.5, 0.75, 0.5625)], -1)
        focal = width * uniform(n, low=0.7, high=1.7)
        middle = size * uniform(n, 2, low=0.47, high=0.53)
        camera = torch.cat([focal[:, None], focal[:, None], middle], -1)
        # Distances in diameters make every apparent size equally likely, within what depth cameras see.
        z = (diameter * torch.exp(uniform(n, low=0.6, high=2.6))).clamp(0.2, 2.5)
        margin = torch.where(uniform(n, 1) < 0.25, 0.02, 0.15)
        pixel = size * (margin + (1 - 2 * margin) * uniform(n, 2))
        t = torch.cat([(pixel - middle) / focal[:, None] * z[:, None], z[:, None]], -1)
        return camera, size, t

    def _few(self, n: int) -> Tensor:
        """Which of the neighbours of a tidy scene are there."""
        chance = torch.zeros(INSTANCES - 1, device=self.device)
        chance[:4] = 0.5
        return self._uniform(n, INSTANCES - 1) < chance

    def _apart(self, t: Tensor, diameter: Tensor, z: Tensor) -> Tensor:
        """Positions beside and behind the target, (n, M - 1, 3)."""
        n, m = len(t), INSTANCES - 1
        touching = (diameter[:, :1] + diameter[:, 1:]) / 2
        angle = self._uniform(n, m, high=2 * math.pi)
        away = torch.stack([angle.cos(), angle.sin(), torch.zeros_like(angle)], -1)
        shift = self._uniform(n, m, low=-0.4, high=1.2)
        spread = self._uniform(n, m, low=0.75, high=1.5)
        return t[:, None] + away * (spread * touching)[..., None] + (t / z)[:, None] * (shift * touching)[..., None]

    def _touching(self, t: Tensor, toward: Tensor, up: Tensor, points: Tensor) -> Tensor:
        """Positions at which the neighbours' supporting planes meet the target's, (n, M - 1, 3).

        Half of the scenes pack them beside the target on its table, half from every side. None stands between target and
        camera: ``_in_front`` does that, by how much it is told to cover.
        """
        n, m = len(t), INSTANCES - 1
        d = self._direction(n, m)
        flat = d - up[:, None] * ((d * up[:, None]).sum(-1, keepdim=True) * 0.85)
        d = F.normalize(torch.where(self._uniform(n, 1, 1) < 0.5, flat, d), dim=-1)
        front = (d * toward[:, None]).sum(-1, keepdim=True)
        d = F.normalize(torch.where(front < -0.3, d - (front + 0.3) * 1.0 * toward[:, None], d), dim=-1)
        return t[:, None] + d * self._contact(d, points)[..., None]

    def _contact(self, d: Tensor, points: Tensor) -> Tensor:
        """Distance along d at which instance 1.. touches the target, mostly without a gap. (n, M - 1)"""
        target = torch.einsum("nmi,npi->nmp", d, points[:, 0]).amax(-1)
        neighbour = torch.einsum("nmi,nmpi->nmp", -d, points[:, 1:]).amax(-1)
        gap = self._uniform(*d.shape[:2], low=-0.3, high=0.25).clamp(min=0) * target
        return target + neighbour + gap

    def _in_front(self, t: Tensor, toward: Tensor, points: Tensor, diameter: Tensor) -> Tensor:
        """Position of instance 1, which covers a part of the target's side, from nothing to about three quarters. (n, 3)"""
        n = len(t)
        side = self._direction(n)
        side = F.normalize(side - (side * toward).sum(-1, keepdim=True) * toward, dim=-1)
        across = torch.stack([side, -toward], 1)
        target = torch.einsum("nki,npi->nkp", across, points[:, 0])
        cover = torch.einsum("nki,npi->nkp", -across, points[:, 1])
        # The cover's near edge lies somewhere between the target's edge and three quarters into it.
        width = target[:, 0].amax(-1) - target[:, 0].amin(-1)
        lateral = target[:, 0].amax(-1) + cover[:, 0].amax(-1) - width * self._uniform(n, low=0.0, high=0.75)
        closeness = target[:, 1].amax(-1) + cover[:, 1].amax(-1)
        # Touching, or up to a diameter nearer to the camera.
        closeness = closeness + diameter[:, 0] * self._uniform(n, low=-1.0, high=1.0).clamp(min=0)
        return t + side * lateral[:, None] - toward * closeness[:, None]

    def _tints(self, n: int, target: Tensor) -> Tensor:
        """(n, M, 4): a colour and how much of it replaces the instance's own."""
        tint = torch.zeros(n, INSTANCES, 4, device=self.device)
        same = (self._uniform(n, 1) < self.effects.same_color).float() * self._uniform(n, 1, low=0.4, high=1.0)
        tint[:, 1:, :3] = (self.tables.color[target][:, None] + 0.05 * self._normal(n, INSTANCES - 1, 3)).clamp(0, 1)
        tint[:, 1:, 3] = same
        return tint

    def _planes(self, target: _Target) -> tuple[Tensor, Tensor]:
        """(n, 2, 4) table and wall, and (n,) height of a table that is a slab instead, 0 where it is none."""
        e, uniform, n = self.effects, self._uniform, len(target.center)
        t, toward, up, points, diameter = target.center, target.toward, target.up, target.points, target.diameter
        lowest = torch.einsum("ni,npi->np", -up, points).amax(-1)
        near = diameter * uniform(n, low=0.2, high=0.6)
        below = torch.where(uniform(n) < e.resting, lowest * 1.002, torch.maximum(near, lowest))
        table = (up * t).sum(-1) - below
        edge = uniform(n) < e.table_edge
        wall = -F.normalize(toward + 0.35 * self._normal(n, 3), dim=-1)
        behind = torch.einsum("ni,npi->np", -wall, points).amax(-1)
        touching = uniform(n) < e.wall_behind
        far = diameter * torch.exp(uniform(n, low=-1.0, high=2.0))
        distance = (wall * t).sum(-1) - behind - torch.where(touching, 0.0, far)
        there = (uniform(n) < 0.6) | touching
        plane = torch.stack(
            [
                torch.cat([up, (table * (uniform(n) < 0.75) * ~edge)[:, None]], -1),
                torch.cat([wall, (distance * there)[:, None]], -1),
            ],
            1,
        )
        return plane, torch.where(edge, below, 0.0)

    def _boxes(self, target: _Target, crowded: Tensor, edge: Tensor) -> tuple[Tensor, Tensor]:
        """Poses (n, B, 4, 4) and half sizes (n, B, 3), 0 where there is none: a slab of a table, four sides, a bar. crowded: (n,)
        bool, whether neighbours touch the target. edge: (n,) m, see ``_planes``."""
        e, uniform, n = self.effects, self._uniform, len(target.center)
        t, toward, up, points, diameter = target.center, target.toward, target.up, target.points, target.diameter
        side = F.normalize(torch.linalg.cross(up, self._direction(n)), dim=-1)
        # Copies on a shelf face the camera: mostly the walls do.
        facing = F.normalize(torch.linalg.cross(up, toward), dim=-1)
        side = torch.where(uniform(n, 1) < 0.5, side, facing)
        frame = torch.stack([side, torch.linalg.cross(up, side), up], -1)
        reach = torch.einsum("nij,npi->npj", frame, points)
        high, low = reach.amax(1), reach.amin(1)
        pose = torch.eye(4, device=self.device).repeat(n, BOXES, 1, 1)
        pose[..., :3, :3] = frame[:, None]
        local = torch.zeros(n, BOXES, 3, device=self.device)
        half = torch.zeros(n, BOXES, 3, device=self.device)

        # A slab whose edge lies under the target or beside it.
        slab = diameter[:, None] * uniform(n, 3, low=0.6, high=3.0)
        slab[:, 2] = uniform(n, low=0.005, high=0.03)
        shift = (slab - diameter[:, None] * uniform(n, 3, low=0.1, high=0.6)) * torch.sign(self._normal(n, 3))
        local[:, 0] = torch.cat([shift[:, :2], (-edge - slab[:, 2])[:, None]], -1)
        half[:, 0] = slab * (edge > 0)[:, None]

        # Four sides at the target or some way off, of a bin or a shelf.
        inside = (uniform(n) < e.container) & crowded
        thick = uniform(n, low=0.002, high=0.02)
        clear = diameter[:, None, None] * uniform(n, 2, 3, low=-0.5, high=1.2).clamp(min=0)
        top, bottom = high + clear[:, 0], low - clear[:, 1]
        shelf = uniform(n) < 0.4
        tall = torch.where(uniform(n) < 0.5, diameter * uniform(n, low=0.3, high=1.0), top[:, 2] - low[:, 2])
        for i in range(4):
            axis, positive = i % 2, i < 2
            a = torch.full((n,), axis, device=self.device)
            a = torch.where(shelf & (axis == 1), 2, a)
            at = (top if positive else bottom).gather(1, a[:, None])[:, 0]
            at = at + thick * (1 if positive else -1)
            middle = (top + bottom) / 2
            size = (top - bottom) / 2 + thick[:, None]
            size = torch.stack([size[:, 0], size[:, 1], torch.where(shelf, size[:, 2], tall / 2)], -1)
            middle = torch.stack(
                [middle[:, 0], middle[:, 1], torch.where(shelf, middle[:, 2], low[:, 2] + tall / 2)], -1
            )
            local[:, 1 + i] = middle.scatter(1, a[:, None], at[:, None])
            half[:, 1 + i] = size.scatter(1, a[:, None], thick[:, None]) * inside[:, None]
        pose[:, :5, :3, 3] = t[:, None] + torch.einsum("nij,nbj->nbi", frame, local[:, :5])

        # A bar that touches the target anywhere but exactly in front of it.
        R = so3.random_rotations(n, self.generator, self.device)
        bar = diameter[:, None] * torch.exp(uniform(n, 3, low=-3.0, high=0.3))
        d = self._direction(n)
        front = (d * toward).sum(-1, keepdim=True)
        d = F.normalize(torch.where(front < -0.6, d - (front + 0.6) * 2.0 * toward, d), dim=-1)
        extent = torch.einsum("ni,npi->np", d, points).amax(-1) + (torch.einsum("ni,nij->nj", d, R).abs() * bar).sum(-1)
        pose[:, 5, :3, :3] = R
        pose[:, 5, :3, 3] = t + d * extent[:, None]
        half[:, 5] = bar * ((uniform(n) < e.bar) & (pose[:, 5, 2, 3] > 0.1))[:, None]
        return pose, half

    def _hands(self, target: _Target) -> tuple[Tensor, Tensor]:
        """Ends (n, C, 2, 3) and radii (n, C) of a palm, a thumb and four fingers that reach around the target."""
        e, uniform, n = self.effects, self._uniform, len(target.center)
        t, toward, points, diameter = target.center, target.toward, target.points, target.diameter
        palm = self._direction(n)
        front = (palm * toward).sum(-1, keepdim=True)
        palm = F.normalize(palm - front.clamp(max=0) * 1.5 * toward, dim=-1)
        reach = F.normalize(torch.linalg.cross(palm, self._direction(n)), dim=-1)
        along = torch.linalg.cross(palm, reach)
        axes = torch.stack([palm, reach, along], 1)
        support = torch.einsum("nki,npi->nkp", axes, points)
        high, low = support.amax(-1), support.amin(-1)
        thick = uniform(n, low=0.007, high=0.011)
        ends = torch.zeros(n, CAPSULES, 2, 3, device=self.device)
        back = high[:, 0] + 0.02
        length = uniform(n, 4, low=0.02, high=0.09)
        middle = self._uniform(n, low=-0.4, high=0.4) * (high[:, 2] - low[:, 2])
        # Fingers and thumb go from the palm past the target's two sides.
        for i in range(5):
            side = high[:, 1] + thick if i < 4 else low[:, 1] - thick
            row = middle + (i - 1.5) * 2.2 * thick if i < 4 else middle
            tip = back - length[:, i % 4] - 0.03
            for k, deep in enumerate((back, tip)):
                ends[:, i, k] = torch.stack([deep, side + thick * (k * 0.5 - 0.25), row + k * 0.3 * thick], -1)
        for k, sign in enumerate((-1, 1)):
            ends[:, 5, k] = torch.stack([back + 0.02, torch.zeros_like(back), middle + sign * 0.035], -1)
        ends = t[:, None, None] + torch.einsum("nki,ncdk->ncdi", axes, ends)
        radius = thick[:, None].repeat(1, CAPSULES)
        radius[:, 5] = 0.03
        there = (uniform(n) < e.hand) & (diameter < 0.3) & (ends[..., 2].amin((1, 2)) > 0.08)
        return ends, radius * there[:, None]


def pack(drawn: dict[str, Tensor]) -> tuple[SceneData, dict[str, Tensor]]:
    """SceneData of its fields but for the bounding spheres, which are found here, and the memory that it is in."""
    tensors = dict(drawn)
    half = drawn["box_half"]
    tensors["box_ball"], tensors["box_order"] = _nearest_first(
        drawn["box"][..., :3, 3], half.norm(dim=-1), half[..., 0] > 0
    )
    tensors = {name: values.contiguous() for name, values in tensors.items()}
    return scene_data(tensors), tensors


def _nearest_first(center: Tensor, radius: Tensor, there: Tensor) -> tuple[Tensor, Tensor]:
    """Bounding spheres (n, K, 4) of centres (n, K, 3) and radii (n, K), as SceneData has them, and their order (n, K)."""
    # A little larger: rounding must not cut off what touches them.
    ball = torch.cat([center, torch.where(there, radius * 1.002, -1.0)[..., None]], -1)
    distance = torch.where(there, center.norm(dim=-1) - radius, math.inf)
    order = distance.argsort(1)
    return ball.gather(1, order[..., None].expand_as(ball)), order.int()

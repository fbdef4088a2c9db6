"""A generated recording of an object on a printed board, walked around with an RGB-D camera: what ``object scan`` reads."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from ..pose.mesh import ObjectModel
from ..pose.mesh_bank import MeshArrays
from ..replay.recording_truth import GroundTruth, InstanceTruth
from ..types import CameraIntrinsics, Frame
from .depth_noise import DepthNoise, add_depth_noise
from .objects import SynthObject
from .resting import resting_poses
from .scene import as_model, look_at, random_rooms, surface_picture
from .scene_renderer import SURFACES, SceneRenderer, SceneSet
from .sensor import VIDEO_SENSOR, ColorSensor, expose

Array = NDArray[np.float64]


@dataclass(frozen=True)
class ScanSettings:
    """size: (height, width). turns: how often the camera goes round; elevation: lowest and highest, degrees, each round
    one between. distance: of the camera, m. pose: index of the resting pose. shake: of the hand, m and rad, a frame to
    the next. blur: frames of motion that an exposure takes in, averaged of so many renderings. hidden: share of the board,
    from its left edge, that something covers. mirror: share of the object's depth that is lost, as glossy things lose it.
    """

    frames: int = 240
    size: tuple[int, int] = (480, 640)
    rate: float = 15.0
    seed: int = 0
    turns: float = 3.0
    elevation: tuple[float, float] = (25.0, 65.0)
    distance: float = 0.45
    pose: int = 0
    arc: float = 360.0
    shake: float = 0.002
    blur: int = 1
    hidden: float = 0.0
    mirror: float = 0.0
    start_ns: int = 1_700_000_000_000_000_000
    frame_id: str = "camera_color_optical_frame"
    noise: DepthNoise = field(default_factory=DepthNoise)
    sensor: ColorSensor = VIDEO_SENSOR


class ScanVideo:
    """Frames of one scan. board: (picture (H, W) uint8 of the print, (width, height) m). The world is the board's frame."""

    def __init__(
        self,
        item: SynthObject | ObjectModel,
        board: tuple[NDArray[np.uint8], tuple[float, float]],
        settings: ScanSettings,
        device: torch.device | str = "cpu",
    ) -> None:
        self.settings = s = settings
        rng = np.random.default_rng(s.seed)
        self.model = as_model(item)
        sheet = _sheet(*board)
        cover = replace(sheet, texture=np.full((4, 4, 3), 90, np.uint8))
        pictures = [surface_picture(rng, calm=1.0) for _ in range(SURFACES)]
        self._renderer = SceneRenderer([self.model.arrays, sheet, cover], pictures, device)
        rest = resting_poses(self.model.arrays.vertices)
        index = s.pose % len(rest.weight)
        yaw = _turn_that_fits(rng, self.model.arrays.vertices @ rest.rotation[index].T, board[1])
        T = np.tile(np.eye(4), (3, 1, 1))
        T[0, :3, :3] = yaw @ rest.rotation[index]
        T[0, 2, 3] = rest.height[index]
        footprint = (self.model.arrays.vertices @ T[0, :3, :3].T)[:, :2]
        T[0, :2, 3] = -(footprint.min(0) + footprint.max(0)) / 2
        # A hair above the table, or both would be the nearest surface.
        T[1, 2, 3] = 0.0
        T[2, :3, 3] = (-board[1][0] * (1 - s.hidden), 0, 0.0015)
        self._mesh = np.array([[0, 1, 2 if s.hidden else -1]])
        self._T_world_mesh = T[None]
        self._rooms = random_rooms(rng, 1, SURFACES)
        self._rooms["surface"] = np.arange(SURFACES, dtype=np.float64)[None]
        self._rooms["table"][:, :, 2] -= 0.0006
        self._rooms["level"] = np.array([[0.55, 0.65, 0.25, 0.5]])
        self._walk = self._plan(rng)
        height, width = s.size
        focal = 0.95 * width
        self.camera = CameraIntrinsics(focal, focal, (width - 1) / 2, (height - 1) / 2, width, height)

    @property
    def T_board_obj(self) -> Array:
        """(4, 4) pose of the mesh as loaded in the board's frame."""
        return self.model.from_centered(self._T_world_mesh[0, 0])

    def _plan(self, rng: np.random.Generator) -> Array:
        """(frames + 1, 4, 4) board <- camera: rounds at rising elevation, with the unsteadiness of a hand."""
        s = self.settings
        share = np.linspace(0, 1, s.frames + 1)
        azimuth = (
            np.deg2rad(s.arc) * s.turns * share
            if s.arc == 360.0
            else np.deg2rad(s.arc) * np.sin(np.pi * s.turns * share)
        )
        low, high = np.deg2rad(s.elevation)
        elevation = low + (high - low) * share
        direction = np.stack(
            [np.cos(azimuth) * np.cos(elevation), np.sin(azimuth) * np.cos(elevation), np.sin(elevation)], 1
        )
        steps = rng.normal(0, s.shake, (s.frames + 1, 3))
        wander = np.cumsum(steps, 0) - np.cumsum(steps, 0).mean(0)
        focus = np.array([0, 0, 0.03]) + np.clip(wander, -0.03, 0.03)
        distance = s.distance * (1 + 0.08 * np.sin(7 * np.pi * share))
        return look_at(focus + direction * distance[:, None], focus, np.clip(wander[:, 0] * 5, -0.1, 0.1))

    def __len__(self) -> int:
        return self.settings.frames

    def frame(self, index: int) -> tuple[Frame, GroundTruth]:
        """Frame ``index`` and its truth; depth in uint16 millimetres."""
        s = self.settings
        generator = torch.Generator(device=self._renderer.device)
        generator.manual_seed(s.seed * 1_000_003 + index)
        shares = (np.arange(s.blur) + 0.5) / s.blur - 0.5 if s.blur > 1 else np.zeros(1)
        outs = [self._renderer.render(self._scene(self._between(index + t)), s.size) for t in shares]
        middle = outs[len(outs) // 2]
        linear = torch.stack([o.rgb for o in outs]).mean(0)
        rgb = expose(linear, s.sensor, generator)[0].cpu().numpy()
        depth = add_depth_noise(middle.depth, middle.cosine, s.noise, generator)[0]
        if s.mirror:
            lost = torch.rand(depth.shape, generator=generator, device=depth.device) < s.mirror
            depth = depth.masked_fill(lost & (middle.instance[0] == 0), 0.0)
        millimetres = (depth * 1000).round().clamp(0, 65535).cpu().numpy().astype(np.uint16)
        T_world_cam = self._between(index)
        T_cam_obj = np.linalg.inv(T_world_cam) @ self.T_board_obj
        mask = (middle.instance[0] == 0).cpu().numpy()
        stamp = s.start_ns + round(index * 1e9 / s.rate)
        frame = Frame(stamp, s.frame_id, rgb, millimetres, 0.001, self.camera, {self.model.name: mask})
        return frame, GroundTruth((InstanceTruth(self.model.name, self.model.name, T_cam_obj, 1.0),), T_world_cam)

    def _between(self, index: float) -> Array:
        """The walk at a fraction of a frame."""
        first = int(np.clip(np.floor(index), 0, self.settings.frames - 1))
        a, b = self._walk[first], self._walk[first + 1]
        share = index - first
        T = np.eye(4)
        turn = Rotation.from_matrix(a[:3, :3].T @ b[:3, :3]).as_rotvec()
        T[:3, :3] = a[:3, :3] @ Rotation.from_rotvec(share * turn).as_matrix()
        T[:3, 3] = a[:3, 3] + share * (b[:3, 3] - a[:3, 3])
        return T

    def _scene(self, T_world_cam: Array) -> SceneSet:
        k = self.camera
        return SceneSet(
            mesh=self._mesh,
            T_world_mesh=self._T_world_mesh,
            gloss=np.array([[0.15, 0.0, 0.0]]),
            camera=np.array([[k.fx, k.fy, k.cx, k.cy]]),
            T_world_cam=T_world_cam[None],
            **self._rooms,  # type: ignore[arg-type]
        )


def _turn_that_fits(rng: np.random.Generator, vertices: NDArray[np.floating], size: tuple[float, float]) -> Array:
    """(3, 3) a turn about the vertical with which the thing leaves a rim of the sheet free, as people lay it; else any."""
    turns = Rotation.from_euler("z", rng.uniform(0, 2 * np.pi, (64, 1))).as_matrix()
    for turn in turns:
        if (np.ptp(vertices @ turn.T, axis=0)[:2] < np.array(size) - 0.03).all():
            return np.asarray(turn)
    return np.asarray(turns[0])


def _sheet(picture: NDArray[np.uint8], size: tuple[float, float]) -> MeshArrays:
    """A thin sheet in the plane z = 0 whose upper side shows the picture; with a white border of a centimetre."""
    border = 0.010
    pad = round(border / size[0] * picture.shape[1])
    page = np.pad(picture, pad, constant_values=255)
    w, h = size[0] / 2 + border, size[1] / 2 + border
    vertices = np.array([[-w, -h, 0], [w, -h, 0], [w, h, 0], [-w, h, 0]], np.float32)
    faces = np.array([[0, 1, 2], [0, 2, 3]], np.int32)
    uv = np.array([[0, 0], [1, 0], [1, 1], [0, 1]], np.float32)[faces]
    return MeshArrays(
        vertices=vertices,
        faces=faces,
        normals=np.tile(np.array([0, 0, 1], np.float32), (4, 1)),
        colors=np.zeros((4, 3), np.float32),
        uv=uv,
        texture=np.repeat(page[..., None], 3, 2),
    )

"""A synthetic RGB-D video: a table with objects, a moving camera, moving objects and a moving light.

Every frame is a function of (objects, settings, index) alone, so frames can be rendered in any order and process.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from ..pose.mesh import ObjectModel
from ..replay.recording import GroundTruth, InstanceTruth
from ..types import CameraIntrinsics, Frame
from .depth_noise import DepthNoise, add_depth_noise
from .objects import SynthObject
from .scene import Assets, look_at, place_on_table, random_rooms, surface_picture
from .scene_renderer import SURFACES, SceneSet
from .sensor import VIDEO_SENSOR, ColorSensor, expose

Array = NDArray[np.float64]
CYCLE = 60.0  # The speed limits hold over so many seconds of nominal motion, more than any recording lasts.
STEP = 1 / 120
VIEWS = 12
SHUTTER_STEPS = 9
"""A colour image with a shutter time is the mean of this many instants; odd, so that one is the frame's own."""
JOLT_FIRST, JOLT_PERIOD, JOLT_TIME = 1.0, 2.0, 0.2
"""The camera is jolted first at this time (s), then with this period (s), each time for so long (s)."""


@dataclass(frozen=True)
class VideoSettings:
    """size: (height, width). rate: Hz. max_speed (m/s), max_turn (deg/s): limits of every target's motion in the camera
    frame, one of which is reached. targets: names of the objects shown, repeated for several instances; empty shows all
    given objects once. moving: how many of the targets move themselves. distractors: other objects on the table.
    distance: of the camera, m. min_visibility: a view is looked for in which every target stays visible by this share.
    shutter: s that the colour image is exposed for, around its stamp: what moves meanwhile is blurred. jolt: deg by which the
    camera is turned and back, as by a knock, beside its other motion.
    """

    frames: int = 300
    size: tuple[int, int] = (480, 640)
    rate: float = 30.0
    seed: int = 0
    max_speed: float = 0.30
    max_turn: float = 60.0
    targets: tuple[str, ...] = ()
    moving: int = 1
    distractors: int = 5
    distance: float = 0.75
    min_visibility: float = 0.35
    shutter: float = 0.0
    jolt: float = 0.0
    start_ns: int = 1_700_000_000_000_000_000
    frame_id: str = "camera_color_optical_frame"
    noise: DepthNoise = field(default_factory=DepthNoise)
    sensor: ColorSensor = VIDEO_SENSOR

    def __post_init__(self) -> None:
        height, width = self.size
        if height < 16 or width < 16:
            raise ValueError(f"size={width}x{height} must be at least 16x16")
        for name in ("frames", "rate", "max_speed", "max_turn", "distance"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name}={getattr(self, name)} must be positive")
        for name, most in (("shutter", 1 / self.rate), ("jolt", 45.0)):
            if not 0 <= getattr(self, name) <= most:
                raise ValueError(f"{name}={getattr(self, name)} must be in [0, {most:.3g}]")


class SceneVideo:
    """Renders frames of one video on a device. Raises ValueError for targets that are not among the objects."""

    def __init__(
        self, objects: Sequence[SynthObject | ObjectModel], settings: VideoSettings, device: torch.device | str = "cpu"
    ) -> None:
        self.settings = settings
        rng = np.random.default_rng(settings.seed)
        pictures = [surface_picture(rng, calm=0.8) for _ in range(SURFACES)]
        self._assets = Assets(objects, device, rng, settings.distractors, pictures)
        names = [m.name for m in self._assets.objects]
        targets = settings.targets or tuple(names)
        for name in targets:
            if name not in names:
                raise ValueError(f"target {name!r} is none of the objects: {', '.join(names)}")
        self._objects = [names.index(name) for name in targets]
        seen: dict[str, int] = {}
        self.names = []
        for name in targets:
            count = seen[name] = seen.get(name, -1) + 1
            self.names.append(name if count == 0 else f"{name}_{count}")
        height, width = settings.size
        focal = 0.95 * width
        self.camera = CameraIntrinsics(focal, focal, (width - 1) / 2, (height - 1) / 2, width, height)
        self._rooms = random_rooms(rng, 1, SURFACES)
        self._rooms["surface"] = np.arange(SURFACES, dtype=np.float64)[None]
        self._rooms["level"] = np.array([[0.5, 0.75, 0.35, 0.6]])
        self._place(rng)
        self._plan(rng)

    def __len__(self) -> int:
        return self.settings.frames

    def _place(self, rng: np.random.Generator) -> None:
        """Resting poses; the table is widened until every target has its place."""
        kinds = len(self._assets.objects)
        others = [kinds + i for i in range(self.settings.distractors)]
        wanted = np.array([[*self._objects, *others]], np.int64)
        spread, targets = 0.08, len(self._objects)
        while True:
            poses, mesh = place_on_table(rng, self._assets, wanted, np.array([spread]), lift=0.0, tries=60)
            if (mesh[0, :targets] >= 0).all():
                break
            spread *= 1.15
        self._mesh, self._rest = mesh, poses[0]
        self._gloss = rng.uniform(0.1, 0.7, mesh.shape)
        reach = np.abs(poses[0, :, :2, 3]).max() + 0.2
        self._rooms["table"][0, 0, :2] = np.minimum(self._rooms["table"][0, 0, :2], -reach)
        self._rooms["table"][0, 1, :2] = np.maximum(self._rooms["table"][0, 1, :2], reach)
        self._rooms["room"][0, :, :2] = self._rooms["table"][0, :, :2] + np.array([[-1.6], [1.6]])

    def _plan(self, rng: np.random.Generator) -> None:
        """Random phases of all motions, the speed that meets the limits, and the side to look from."""
        self._pace = 1.0
        self._moving = list(range(min(self.settings.moving, len(self._objects))))
        count = len(self._moving)
        self._axes = rng.normal(size=(count, 3)) * (0.5, 0.5, 1.0)
        self._axes /= np.linalg.norm(self._axes, axis=1, keepdims=True)
        self._turns = rng.uniform(0.7, 1.4, count)
        self._lifts = rng.uniform(0.08, 0.14, count)
        self._slides = rng.uniform(-0.06, 0.06, (count, 2))
        self._rates = rng.uniform(0.9, 1.3, count)
        self._focus = np.append(self._rest[: len(self._objects), :2, 3].mean(axis=0), 0.05)
        self._phases = rng.uniform(0, 2 * np.pi, 6)
        self._light = np.array([*rng.uniform(-0.5, 0.5, 2), 1.3])
        best = (-1.0, 0.0, 1.0)
        for azimuth in rng.uniform(0, 2 * np.pi, VIEWS):
            self._azimuth = float(azimuth)
            self._set_pace()
            worst = self._worst_visibility()
            best = max(best, (worst, self._azimuth, self._pace))
            if worst >= self.settings.min_visibility:
                break
        _, self._azimuth, self._pace = best

    def _set_pace(self) -> None:
        """The factor of the motions' speed at which one of the limits is reached."""
        self._pace = 1.0
        time = np.arange(0, CYCLE, STEP)
        speed, turn = self.speeds(time)
        self._pace = float(min(self.settings.max_speed / speed.max(), np.deg2rad(self.settings.max_turn) / turn.max()))

    def _worst_visibility(self) -> float:
        """Smallest visible share of any target over the video, from a few coarse frames."""
        s = self.settings
        scenes = self._scenes(np.linspace(0, s.frames / s.rate, 16))
        scenes.camera = scenes.camera * (64 / s.size[1])
        out = self._assets.renderer.render(scenes, (64 * s.size[0] // s.size[1], 64))
        return float(out.visibility[:, : len(self._objects)].min())

    def speeds(self, time: Array) -> tuple[Array, Array]:
        """Speed (m/s) of model centres and turning rate (rad/s) in the camera frame, (targets, T - 1), of T times (s)."""
        T = np.linalg.inv(self._camera_poses(time))[:, None] @ self._object_poses(time)[:, : len(self._objects)]
        step = np.diff(time)[:, None]
        speed = np.linalg.norm(np.diff(T[..., :3, 3], axis=0), axis=-1) / step
        relative = np.swapaxes(T[:-1, :, :3, :3], -1, -2) @ T[1:, :, :3, :3]
        angle = Rotation.from_matrix(relative.reshape(-1, 3, 3)).magnitude().reshape(speed.shape)
        return speed.T, (angle / step).T

    def _object_poses(self, time: Array) -> Array:
        """(T, M, 4, 4) world <- mesh: moving objects rise, slide and turn, and come back to rest."""
        t = time * self._pace
        poses = np.tile(self._rest, (len(t), 1, 1, 1))
        for k, m in enumerate(self._moving):
            up = (1 - np.cos(self._rates[k] * t)) / 2
            turn = Rotation.from_rotvec((up * self._turns[k] * np.sin(0.37 * t + 0.8))[:, None] * self._axes[k])
            poses[:, m, :3, :3] = turn.as_matrix() @ self._rest[m, :3, :3]
            poses[:, m, 2, 3] += up * self._lifts[k] + np.abs(np.sin(turn.magnitude())) * up * 0.1
            sway = np.sin(0.53 * t)
            poses[:, m, :2, 3] += (up * sway)[:, None] * self._slides[k]
        return poses

    def _camera_poses(self, time: Array) -> Array:
        """(T, 4, 4) world <- camera: an orbit that sways in azimuth, height and distance."""
        t, p = time * self._pace, self._phases
        azimuth = self._azimuth + 0.5 * np.sin(0.31 * t + p[0])
        elevation = np.deg2rad(38 + 11 * np.sin(0.43 * t + p[1]))
        distance = self.settings.distance * (1 + 0.14 * np.sin(0.37 * t + p[2]))
        direction = np.stack(
            [np.cos(azimuth) * np.cos(elevation), np.sin(azimuth) * np.cos(elevation), np.sin(elevation)], axis=1
        )
        focus = self._focus + 0.03 * np.stack([np.sin(0.29 * t + p[3]), np.sin(0.41 * t + p[4]), 0 * t], axis=1)
        return look_at(focus + direction * distance[:, None], focus, 0.06 * np.sin(0.47 * t + p[5]))

    def _jolts(self, time: Array) -> Array:
        """(T, 4, 4) camera <- jolted camera: yaw and pitch in turn, there and back, each time for JOLT_TIME."""
        number, phase = np.divmod(time - JOLT_FIRST, JOLT_PERIOD)
        u = np.where((time >= JOLT_FIRST) & (phase < JOLT_TIME), phase / JOLT_TIME, 0.0)
        angle = np.deg2rad(self.settings.jolt) * np.sin(2 * np.pi * u)
        yaw = number % 2 == 0
        jolts = np.tile(np.eye(4), (len(time), 1, 1))
        jolts[:, :3, :3] = Rotation.from_rotvec(np.stack([angle * ~yaw, angle * yaw, 0 * angle], axis=1)).as_matrix()
        return jolts

    def _scenes(self, time: Array) -> SceneSet:
        """The scene at T times (s)."""
        count, k = len(time), self.camera
        sway = 0.35 * np.stack([np.sin(0.5 * time), np.cos(0.4 * time), 0 * time], axis=1)
        fixed = {name: np.repeat(values, count, axis=0) for name, values in self._rooms.items()}
        return SceneSet(
            mesh=np.repeat(self._mesh, count, axis=0),
            T_world_mesh=self._object_poses(time),
            gloss=np.repeat(self._gloss, count, axis=0),
            camera=np.tile([k.fx, k.fy, k.cx, k.cy], (count, 1)),
            T_world_cam=self._camera_poses(time) @ self._jolts(time),
            **{**fixed, "light": self._light + sway},  # type: ignore[arg-type]
        )

    def frame(self, index: int) -> tuple[Frame, GroundTruth]:
        """Frame ``index`` and its ground truth; masks of all targets by instance name, depth in uint16 millimetres."""
        s = self.settings
        if not 0 <= index < s.frames:
            raise IndexError(f"frame {index} is outside 0..{s.frames - 1}")
        instants = np.linspace(-s.shutter / 2, s.shutter / 2, SHUTTER_STEPS) if s.shutter else np.zeros(1)
        scenes = self._scenes(index / s.rate + instants)
        out = self._assets.renderer.render(scenes, s.size)
        now = len(instants) // 2
        generator = torch.Generator(device=out.rgb.device)
        generator.manual_seed(s.seed * 1_000_003 + index)
        rgb = expose(out.rgb.mean(0, keepdim=True), s.sensor, generator)[0].cpu().numpy()
        depth = add_depth_noise(out.depth[now : now + 1], out.cosine[now : now + 1], s.noise, generator)[0]
        millimetres = (depth * 1000).round().clamp(0, 65535).cpu().numpy().astype(np.uint16)
        instance = out.instance[now].cpu().numpy()
        visibility = out.visibility[now].cpu().numpy()
        T_world_cam = scenes.T_world_cam[now]
        T_cam_mesh = np.linalg.inv(T_world_cam) @ scenes.T_world_mesh[now]
        truths = []
        for m, name in enumerate(self.names):
            model = self._assets.objects[self._objects[m]]
            truths.append(InstanceTruth(name, model.name, model.from_centered(T_cam_mesh[m]), float(visibility[m])))
        frame = Frame(
            stamp_ns=s.start_ns + round(index * 1e9 / s.rate),
            frame_id=s.frame_id,
            rgb=rgb,
            depth=millimetres,
            depth_scale=0.001,
            camera=self.camera,
            masks={name: instance == m for m, name in enumerate(self.names)},
        )
        return frame, GroundTruth(tuple(truths), T_world_cam)

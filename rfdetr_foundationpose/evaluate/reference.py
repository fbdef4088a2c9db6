"""The ``reference`` backend of the bench: FoundationPose in the official implementation's schedule, in plain PyTorch.

Written from its description (Wen et al., CVPR 2024, and the released configuration), not from its code. It computes what
our pipeline computes, in the order and with the transfers of the official one: numpy between the stages, the whole image
expanded and warped per hypothesis, the scorer's depth warped into each crop, back to a whole image and in again, all vertices
transformed per hypothesis, eager autocast networks with unfolded norms, cuDNN's algorithms taken without a search,
``empty_cache`` after every refinement and every scoring. Nothing is slowed down beyond that. Rendering itself is ours (``rasterize``), since the official rasterizer is not freely licensed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from ..pose.constants import CROP_RATIO, MIN_Z, ROT_NORMALIZER

Array = NDArray[np.float32]
Rasterize = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]
"""(poses (N, 4, 4), windows (N, 4) left, top, right, bottom) -> RGB in [0, 1] and camera-frame xyz, (N, R, R, 3) each."""
FilterDepth = Callable[[Tensor], Tensor]
"""(H, W) float32 metres -> eroded and bilaterally filtered, on the same device."""

NEAR, FAR = 0.001, 100.0
PIXEL_BYTES = 100
"""Warping a hypothesis's whole image of points takes so many bytes a pixel, counted generously."""
CPU_IMAGES = 16
"""So many whole images are warped at once on a CPU; on a GPU those of all hypotheses, as in the official code, if they fit."""


@dataclass(frozen=True)
class ReferenceObject:
    """vertices, normals (V, 3) float32 about the model centre; diameter in m; rotations (N, 3, 3) of the hypotheses."""

    vertices: Array
    normals: Array
    diameter: float
    rotations: Array


class ReferenceEstimator:
    """register and track of one object. Poses are of the mesh moved to its model centre."""

    def __init__(
        self,
        item: ReferenceObject,
        refiner: nn.Module,
        scorer: nn.Module,
        rasterize: Rasterize,
        filter_depth: FilterDepth,
        device: torch.device | str,
        size: int = 160,
    ) -> None:
        self.item = item
        self.device = torch.device(device)
        self.size = size
        self._networks = {"refiner": refiner.to(self.device).eval(), "scorer": scorer.to(self.device).eval()}
        self._rasterize = rasterize
        self._filter = filter_depth
        self._vertices = torch.as_tensor(item.vertices, dtype=torch.float32, device=self.device)
        self._normals = torch.as_tensor(item.normals, dtype=torch.float32, device=self.device)
        self.scores = np.zeros(0, np.float32)

    @torch.inference_mode()
    def register(
        self, rgb: NDArray[np.uint8], depth: Array, mask: NDArray[np.bool_], K: NDArray[np.float64], iterations: int = 5
    ) -> NDArray[np.float64]:
        """(4, 4) best pose. rgb (H, W, 3), depth (H, W) m, mask (H, W), K (3, 3): numpy, as the official interface."""
        filtered = self._filter(torch.as_tensor(depth, device=self.device)).cpu().numpy()
        poses = self._hypotheses(filtered, mask, K)
        xyz_map = back_project(filtered, K)
        refined = self._refine(rgb, filtered, xyz_map, K, poses, iterations)
        self.scores = self._score(rgb, filtered, K, refined.cpu().numpy())
        return refined[int(np.argmax(self.scores))].cpu().numpy().astype(np.float64)

    @torch.inference_mode()
    def track(
        self,
        rgb: NDArray[np.uint8],
        depth: Array,
        K: NDArray[np.float64],
        last: NDArray[np.float64],
        iterations: int = 2,
    ) -> NDArray[np.float64]:
        """(4, 4) pose in this frame, from that of the frame before."""
        filtered = self._filter(torch.as_tensor(depth, device=self.device))
        k = torch.as_tensor(K, dtype=torch.float32, device=self.device)
        h, w = filtered.shape
        v, u = torch.meshgrid(torch.arange(h, device=self.device), torch.arange(w, device=self.device), indexing="ij")
        xyz_map = torch.stack(
            [(u - k[0, 2]) * filtered / k[0, 0], (v - k[1, 2]) * filtered / k[1, 1], filtered], dim=-1
        )
        xyz_map[filtered < NEAR] = 0
        poses = np.asarray(last, np.float32).reshape(1, 4, 4)
        return self._refine(rgb, filtered, xyz_map, K, poses, iterations)[0].cpu().numpy().astype(np.float64)

    def _hypotheses(self, depth: Array, mask: NDArray[np.bool_], K: NDArray[np.float64]) -> Array:
        vs, us = np.nonzero(mask)
        values = depth[mask & (depth >= NEAR)]
        if len(us) == 0 or len(values) == 0:
            raise ValueError(f"mask has {len(us)} pixels, {len(values)} of them with depth: nothing to register")
        centre = np.array([(us.min() + us.max()) / 2.0, (vs.min() + vs.max()) / 2.0, 1.0])
        translation = np.linalg.inv(K) @ centre * np.median(values)
        poses = np.tile(np.eye(4, dtype=np.float32), (len(self.item.rotations), 1, 1))
        poses[:, :3, :3] = self.item.rotations
        poses[:, :3, 3] = translation
        return torch.as_tensor(poses, device=self.device).cpu().numpy()  # the official code hands them over by numpy

    def _refine(
        self,
        rgb: NDArray[np.uint8],
        depth: Array | Tensor,
        xyz_map: Array | Tensor,
        K: NDArray[np.float64],
        poses: Array,
        iterations: int,
    ) -> Tensor:
        image, _ = self._upload(rgb, depth)
        xyz = torch.as_tensor(xyz_map, dtype=torch.float32, device=self.device).permute(2, 0, 1)
        current = torch.as_tensor(poses, dtype=torch.float32, device=self.device)
        radius = self.item.diameter / 2
        for _ in range(iterations):
            rendered, observed = self._crops("refiner", image, xyz, K, current)
            trans, rot = (o.float() for o in self._run("refiner", rendered, observed))
            updated = current.clone()
            updated[:, :3, 3] = current[:, :3, 3] + trans * radius
            updated[:, :3, :3] = so3_exp(torch.tanh(rot) * ROT_NORMALIZER).transpose(1, 2) @ current[:, :3, :3]
            current = updated
        self._empty_cache()
        return current

    def _score(self, rgb: NDArray[np.uint8], depth: Array, K: NDArray[np.float64], poses: Array) -> NDArray[np.float32]:
        image, uploaded = self._upload(rgb, depth)
        current = torch.as_tensor(poses, dtype=torch.float32, device=self.device)
        rendered, observed = self._crops("scorer", image, uploaded[None], K, current)
        scores = self._run("scorer", rendered, observed)[0].float().reshape(-1)
        self._empty_cache()
        return scores.cpu().numpy()

    def _run(self, role: str, rendered: Tensor, observed: Tensor) -> tuple[Tensor, ...]:
        with (
            unsearched_algorithms(),
            torch.autocast(self.device.type, torch.float16, enabled=self.device.type == "cuda"),
        ):
            outputs = self._networks[role](rendered, observed)
        return (outputs,) if isinstance(outputs, Tensor) else tuple(outputs)

    def _upload(self, rgb: NDArray[np.uint8], depth: Array | Tensor) -> tuple[Tensor, Tensor]:
        """RGB as float32 (3, H, W), and depth (H, W), which the official code uploads for its refiner too."""
        image = torch.as_tensor(rgb.astype(np.float32), device=self.device)
        return image.permute(2, 0, 1), torch.as_tensor(depth, dtype=torch.float32, device=self.device)

    def _empty_cache(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.empty_cache()

    def _crops(
        self, role: str, image: Tensor, measured: Tensor, K: NDArray[np.float64], poses: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Network inputs (N, 6, R, R) of the rendered and the observed side. measured: points (3, H, W) for the refiner, depth
        (1, H, W) for the scorer."""
        k = torch.as_tensor(K, dtype=torch.float32, device=self.device)
        tf = crop_transforms(poses, k, self.item.diameter * CROP_RATIO[role] / 2, self.size)
        windows = rendered_windows(tf, self.size)
        self._transform_vertices(poses, k, tf, image.shape[1:])
        rgb_a, xyz_a = (x.permute(0, 3, 1, 2) for x in self._rasterize(poses, windows))
        n = len(poses)
        rgb_b = warp_perspective(image.expand(n, -1, -1, -1), tf, self.size, "bilinear") / 255.0
        if role == "scorer":
            depth_b = warp_perspective(measured.expand(n, -1, -1, -1), tf, self.size, "nearest")
            xyz_b = crop_points(depth_b, tf, k, (image.shape[1], image.shape[2]))
        else:
            xyz_b = warp_perspective(measured.expand(n, -1, -1, -1), tf, self.size, "nearest")
        a = torch.cat([rgb_a, self._normalize(role, xyz_a, poses)], dim=1)
        b = torch.cat([rgb_b, self._normalize(role, xyz_b, poses)], dim=1)
        return a.float(), b.float()

    def _normalize(self, role: str, xyz: Tensor, poses: Tensor) -> Tensor:
        invalid = xyz[:, 2:3] < MIN_Z[role]
        relative = (xyz - poses[:, :3, 3, None, None]) / (self.item.diameter / 2)
        return relative.masked_fill(invalid.expand_as(relative) | (relative.abs() >= 2), 0)

    def _transform_vertices(self, poses: Tensor, k: Tensor, tf: Tensor, image_size: torch.Size) -> tuple[Tensor, ...]:
        """What the official renderer computes before it rasterizes: clip positions, camera points, vertex shading."""
        height, width = image_size
        projection = torch.zeros(4, 4, device=self.device)
        projection[0, 0], projection[0, 2] = 2 * k[0, 0] / width, 1 - 2 * k[0, 2] / width
        projection[1, 1], projection[1, 2] = 2 * k[1, 1] / height, 2 * k[1, 2] / height - 1
        projection[2, 2], projection[2, 3] = -(FAR + NEAR) / (FAR - NEAR), -2 * FAR * NEAR / (FAR - NEAR)
        projection[3, 2] = -1
        flip = torch.diag(torch.tensor([1.0, -1.0, -1.0, 1.0], device=self.device))
        homogeneous = F.pad(self._vertices, (0, 1), value=1.0)
        clip = ((projection @ flip @ poses)[:, None] @ homogeneous[None, :, :, None])[..., 0]
        camera = (poses[:, None] @ homogeneous[None, :, :, None])[..., :3, 0]
        corners = rendered_windows(tf, self.size)
        low = corners[:, :2] / torch.tensor([width, height], device=self.device) * 2 - 1
        high = corners[:, 2:] / torch.tensor([width, height], device=self.device) * 2 - 1
        window = torch.eye(4, device=self.device).repeat(len(poses), 1, 1)
        window[:, 0, 0], window[:, 1, 1] = (2 / (high - low)).T
        window[:, 3, 0], window[:, 3, 1] = (-(high + low) / (high - low)).T
        clip = clip @ window
        normals = (poses[:, None, :3, :3] @ self._normals[None, :, :, None])[..., 0]
        return clip, camera, (-normals[..., 2]).clamp(0, 1)


@contextmanager
def unsearched_algorithms() -> Iterator[None]:
    """cuDNN as ``set_seed`` of the official code leaves it, which its ``register`` calls: deterministic, no search."""
    cudnn = torch.backends.cudnn
    before = cudnn.benchmark, cudnn.deterministic
    cudnn.benchmark, cudnn.deterministic = False, True
    try:
        yield
    finally:
        cudnn.benchmark, cudnn.deterministic = before


def back_project(depth: Array, K: NDArray[np.float64]) -> Array:
    """(H, W, 3) camera-frame points of a depth image, 0 where invalid; numpy."""
    h, w = depth.shape
    v, u = np.meshgrid(np.arange(h), np.arange(w), indexing="ij")
    xyz = np.stack([(u - K[0, 2]) * depth / K[0, 0], (v - K[1, 2]) * depth / K[1, 1], depth], axis=-1)
    xyz[depth < NEAR] = 0
    return xyz.astype(np.float32)


def crop_transforms(poses: Tensor, k: Tensor, radius: float, size: int) -> Tensor:
    """(N, 3, 3) image -> crop: the window around the projected translation and its four offsets of ``radius``."""
    offsets = torch.tensor(
        [[0, 0, 0], [radius, 0, 0], [-radius, 0, 0], [0, radius, 0], [0, -radius, 0]], device=poses.device
    )
    points = poses[:, None, :3, 3] + offsets
    projected = points @ k.T
    uv = projected[..., :2] / projected[..., 2:]
    centre = uv[:, 0]
    reach = (uv - centre[:, None]).abs().amax(dim=(1, 2))
    left, top = (centre - reach[:, None]).round().T
    right, bottom = (centre + reach[:, None]).round().T
    tf = torch.eye(3, device=poses.device).repeat(len(poses), 1, 1)
    tf[:, 0, 0], tf[:, 1, 1] = size / (right - left), size / (bottom - top)
    tf[:, 0, 2], tf[:, 1, 2] = -left * tf[:, 0, 0], -top * tf[:, 1, 1]
    return tf


def rendered_windows(tf: Tensor, size: int) -> Tensor:
    """(N, 4) left, top, right, bottom in the image of crop corners (0, 0) and (size - 1, size - 1)."""
    corners = torch.tensor([[0.0, 0.0, 1.0], [size - 1.0, size - 1.0, 1.0]], device=tf.device)
    mapped = (torch.linalg.inv(tf)[:, None] @ corners[None, :, :, None])[..., 0]
    return mapped[..., :2].reshape(-1, 4)


def crop_points(depth: Tensor, tf: Tensor, k: Tensor, image_size: tuple[int, int]) -> Tensor:
    """The points (N, 3, R, R) of depth crops (N, 1, R, R): through a whole image each, with the nearest pixel both ways."""
    h, w = image_size
    size = depth.shape[-1]
    v, u = torch.meshgrid(torch.arange(h, device=depth.device), torch.arange(w, device=depth.device), indexing="ij")
    points = []
    together = CPU_IMAGES
    if depth.device.type == "cuda":
        together = max(1, torch.cuda.mem_get_info(depth.device)[0] // (h * w * PIXEL_BYTES))
    for part in range(0, len(depth), together):
        rows = slice(part, part + together)
        z = warp_perspective(depth[rows], torch.linalg.inv(tf[rows]), (h, w), "nearest")[:, 0]
        xyz = torch.stack([(u - k[0, 2]) * z / k[0, 0], (v - k[1, 2]) * z / k[1, 1], z], dim=1)
        xyz.masked_fill_(z[:, None] < NEAR, 0)
        points.append(warp_perspective(xyz, tf[rows], size, "nearest"))
    return torch.cat(points)


def warp_perspective(images: Tensor, tf: Tensor, size: int | tuple[int, int], mode: str) -> Tensor:
    """images (N, C, H, W) through tf (N, 3, 3) to (N, C, size, size), zeros outside.

    The homography is applied to normalized coordinates of W - 1 and H - 1, sampled with align_corners=False. Rounded as
    kornia's function of this name rounds it, which decides between two pixels that are equally near.
    """
    h, w = images.shape[-2:]
    rows, columns = (size, size) if isinstance(size, int) else size
    from_unit_source = torch.linalg.inv(_unit_from_pixel(h, w, tf.device))
    homography = torch.linalg.inv(_unit_from_pixel(rows, columns, tf.device) @ (tf @ from_unit_source))
    x, y = ((torch.arange(n, device=tf.device, dtype=torch.float32) / (n - 1) - 0.5) * 2 for n in (columns, rows))
    y, x = torch.meshgrid(y, x, indexing="ij")
    target = torch.stack([x, y, torch.ones_like(x)], dim=-1).reshape(1, -1, 3).expand(len(tf), -1, -1)
    source = torch.bmm(target, homography.transpose(1, 2))
    grid = (source[..., :2] / source[..., 2:]).reshape(-1, rows, columns, 2)
    return F.grid_sample(images, grid, mode=mode, padding_mode="zeros", align_corners=False)


def _unit_from_pixel(height: int, width: int, device: torch.device) -> Tensor:
    return torch.tensor([[2 / (width - 1), 0, -1], [0, 2 / (height - 1), -1], [0, 0, 1]], device=device)


def so3_exp(v: Tensor) -> Tensor:
    """(N, 3) rotation vectors, rad -> (N, 3, 3), Rodrigues' formula."""
    theta = v.square().sum(1).clamp(min=1e-12).sqrt()[:, None, None]
    x, y, z = v.unbind(1)
    o = torch.zeros_like(x)
    skew = torch.stack([o, -z, y, z, o, -x, -y, x, o], dim=1).view(-1, 3, 3)
    identity = torch.eye(3, device=v.device)
    return identity + torch.sin(theta) / theta * skew + (1 - torch.cos(theta)) / theta.square() * (skew @ skew)

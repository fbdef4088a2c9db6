"""Hypotheses as pairs of crops: the device buffers, and the kernels that fill them."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

import torch
import warp as wp
from torch import Tensor

from ..warp_setup import launch, parts_of, side_by_side
from . import agreement_kernels as comparing
from . import warp_kernels as kernels
from .agreement_columns import ALL_SUMS, SHAPE_SUMS, SILHOUETTE_SUMS
from .constants import CROP_RATIO, MIN_Z, ROT_NORMALIZER
from .networks import CROP_SIZE
from .observation import Observation
from .official_kernels import PASSES, official_inputs
from .renderer import Renderer, Views
from .window_kernels import crop_windows


@dataclass(frozen=True)
class CropSettings:
    """How large the crops of a ``ViewSet`` are, and what they are for.

    size: R, rows and columns of a crop, pixels. dtype: of the runner that takes what ``pairs`` returns. compared: hypotheses
    that ``agree`` serves, None for all; paired: whether ``pairs`` is wanted. Each costs memory, 30 MB for 100. textured:
    whether ``agree`` sums up what ``report`` needs, of texture and of areas, too. outlined: whether ``overlap`` is wanted.
    official_crops: the roles, of "refiner" and
    "scorer", whose observed crops ``pairs`` samples as the official code does, see official_kernels.
    """

    size: int = CROP_SIZE
    dtype: torch.dtype = torch.float32
    compared: int | None = None
    paired: bool = True
    textured: bool = False
    outlined: bool = False
    official_crops: Collection[str] = ()


class ViewSet:
    """Buffers for up to ``capacity`` hypotheses; methods work on the first ``n``, in place, without waiting.

    poses (capacity, 4, 4) float32 T_cam_center; model (capacity,) int32; diameters (capacity,) m.
    inputs: rendered (capacity, 6, R, R) and observed (M, 6, R, R), channels-last, for ``pairs`` to write to instead of its
    own; M is how many it is asked for with observed crops of their own.
    """

    def __init__(
        self,
        renderer: Renderer,
        capacity: int,
        device: torch.device | str,
        crops: CropSettings = CropSettings(),
        *,
        inputs: tuple[Tensor, Tensor] | None = None,
    ) -> None:
        self.renderer = renderer
        self.crops = crops
        self.capacity = capacity
        self.device = torch.device(device)
        self.size = size = crops.size
        self.poses = torch.eye(4, device=self.device).repeat(capacity, 1, 1)
        self.model = torch.zeros(capacity, dtype=torch.int32, device=self.device)
        self.diameters = torch.ones(capacity, device=self.device)
        self.delta = torch.zeros(capacity, 2, device=self.device)
        self._scratch = renderer.scratch(capacity, size) if crops.paired else None
        self._window_observed = torch.zeros(capacity, 4, device=self.device)
        self._window_rendered = torch.zeros(capacity, 4, device=self.device)
        compared = capacity if crops.compared is None else crops.compared
        sums = ALL_SUMS if crops.textured else SHAPE_SUMS
        self._sums = torch.zeros(compared, sums, device=self.device)
        self._partial = torch.zeros(compared, sums, size * comparing.LANES, device=self.device)
        outlined = compared if crops.outlined else 0
        self._overlaps = torch.zeros(outlined, SILHOUETTE_SUMS, size * comparing.LANES, device=self.device)
        shape: tuple[int, ...] = (compared, size, size, 3)
        self._rgb_r, self._xyz_r, self._rgb_o, self._xyz_o = (torch.zeros(shape, device=self.device) for _ in range(4))
        if inputs is None:
            # Written in the runner's own FP16, its conversion costs nothing.
            packed = torch.float16 if crops.dtype == torch.float16 else torch.float32
            shape = (capacity if crops.paired else 0, size, size, 6)
            self._in_r, self._in_o = (torch.zeros(shape, dtype=packed, device=self.device) for _ in range(2))
        else:
            self._in_r, self._in_o = (buffer.permute(0, 2, 3, 1) for buffer in inputs)

    def pairs(self, n: int, observation: Observation, role: str, *, shared: bool = False) -> tuple[Tensor, Tensor]:
        """Network inputs (n, 6, R, R) rendered and (n or 1, 6, R, R) observed of the first n hypotheses.

        Channels-last views of buffers that the next call fills. shared: all hypotheses have one translation and one object,
        so that one observed crop serves them all.
        """
        observed = 1 if shared else n
        self._windows(n, observation, role)
        observation.need(self._window_observed[:observed])

        side_by_side(lambda part, _: self._crop(part, observation, role), parts_of(observed, self.device))
        scratch = self._scratch
        parts = parts_of(n, self.device, None if scratch is None else len(scratch))
        share = 0 if scratch is None else len(scratch) // len(parts)

        def render(part: slice, i: int) -> None:
            views, diameters = self._rendered(part, observation), self.diameters[part]
            own = None if scratch is None else scratch[i * share : (i + 1) * share]
            self.renderer.render_inputs(views, diameters, MIN_Z[role], self._in_r[part], own)

        side_by_side(render, parts)
        return self._in_r[:n].permute(0, 3, 1, 2), self._in_o[:observed].permute(0, 3, 1, 2)

    def _crop(self, part: slice, observation: Observation, role: str) -> None:
        """Network inputs of what was observed, for some hypotheses."""
        official = role in self.crops.official_crops
        self._launch(
            official_inputs if official else kernels.crop_inputs,
            (part.stop - part.start) * self.size * self.size,
            *self._observed(part, observation),
            wp.from_torch(self.poses[part], dtype=wp.mat44f),
            wp.from_torch(self.diameters[part]),
            MIN_Z[role],
            *((PASSES[role], int(self.device.type == "cuda")) if official else ()),
            wp.from_torch(self._in_o[part]),
        )

    def agree(self, n: int, observation: Observation) -> Tensor:
        """How the rendered first n hypotheses agree with what was observed: sums (n, SHAPE_SUMS), or (n, ALL_SUMS) where
        ``textured``, see agreement_columns."""
        self._windows(n, observation, "refiner")
        observation.need(self._window_observed[:n])
        side_by_side(lambda part, _: self._compare(part, observation), parts_of(n, self.device))
        return torch.sum(self._partial[:n], 2, out=self._sums[:n])

    def _compare(self, part: slice, observation: Observation) -> None:
        """Partial sums of some hypotheses."""
        count = part.stop - part.start
        self._launch(
            kernels.crop_observed,
            (count, self.size, self.size),
            *self._observed(part, observation),
            wp.from_torch(self._rgb_o[part]),
            wp.from_torch(self._xyz_o[part]),
        )
        self.renderer.render_into(self._rendered(part, observation), self._rgb_r[part], self._xyz_r[part])
        images = (self._rgb_r, self._xyz_r, self._rgb_o, self._xyz_o)
        self._launch(
            comparing.agreement,
            (count, self.size, comparing.LANES),
            *(wp.from_torch(image[part]) for image in images),
            wp.from_torch(self.poses[part], dtype=wp.mat44f),
            wp.from_torch(self.diameters[part]),
            wp.from_torch(self._partial[part]),
        )

    def overlap(self, n: int, mask: Tensor) -> Tensor:
        """(n,) intersection over union, [0, 1], of the silhouettes of the first n hypotheses and the object's mask (H, W) bool,
        where ``outlined``; of those that ``agree`` was last asked about. What is occluded counts as neither; a pose that is not
        finite has none."""
        self._launch(
            comparing.silhouette,
            (n, self.size, comparing.LANES),
            wp.from_torch(self._xyz_r[:n]),
            wp.from_torch(self._xyz_o[:n]),
            wp.from_torch(mask),
            wp.from_torch(self._window_observed[:n], dtype=wp.vec4f),
            wp.from_torch(self.diameters[:n]),
            wp.from_torch(self._overlaps[:n]),
        )
        inside, outside = self._overlaps[:n].sum(2).unbind(1)
        window = self._window_observed[:n]
        scale = self.size * self.size / ((window[:, 2] - window[:, 0]) * (window[:, 3] - window[:, 1]))
        return (inside / (mask.sum() * scale + outside).clamp(min=1.0)).nan_to_num(0.0)

    def report(self, n: int, observation: Observation, out: Tensor) -> None:
        """Fill the first columns of ``out`` (n, RESULT_COLUMNS or more) float32 with the result rows of the first n
        hypotheses, where texture is compared."""
        sums = self.agree(n, observation)
        self._launch(
            comparing.describe,
            n,
            wp.from_torch(sums),
            wp.from_torch(self.poses[:n], dtype=wp.mat44f),
            wp.from_torch(self.delta[:n], dtype=wp.vec2f),
            wp.from_torch(out),
        )

    def update(self, n: int, trans: Tensor, rot: Tensor) -> None:
        """Apply the refiner's outputs (n, 3) float32 to the first n poses; ``delta`` keeps the sizes of the steps."""
        self._launch(
            kernels.update_poses,
            n,
            wp.from_torch(trans.contiguous()),
            wp.from_torch(rot.contiguous()),
            wp.from_torch(self.diameters[:n]),
            ROT_NORMALIZER,
            wp.from_torch(self.poses[:n], dtype=wp.mat44f),
            wp.from_torch(self.delta[:n], dtype=wp.vec2f),
        )

    def keep(self, order: Tensor) -> None:
        """Move the hypotheses at ``order`` (m,) to the front."""
        self.poses[: len(order)] = self.poses[order]
        self.delta[: len(order)] = self.delta[order]

    def _windows(self, n: int, observation: Observation, role: str) -> None:
        self._launch(
            crop_windows,
            n,
            wp.from_torch(self.poses[:n], dtype=wp.mat44f),
            wp.from_torch(self.diameters[:n]),
            wp.from_torch(observation.camera, dtype=wp.vec4f),
            CROP_RATIO[role],
            float(self.size),
            wp.from_torch(self._window_observed[:n], dtype=wp.vec4f),
            wp.from_torch(self._window_rendered[:n], dtype=wp.vec4f),
        )

    def _rendered(self, part: slice, observation: Observation) -> Views:
        return Views(self.poses[part], self.model[part], self._window_rendered[part], observation.camera)

    def _observed(self, part: slice, observation: Observation) -> list[wp.array]:
        return [
            wp.from_torch(observation.rgb),
            wp.from_torch(observation.depth),
            wp.from_torch(observation.camera, dtype=wp.vec4f),
            wp.from_torch(self._window_observed[part], dtype=wp.vec4f),
        ]

    def _launch(self, kernel: wp.Kernel, dim: int | tuple[int, ...], *inputs: object) -> None:
        launch(kernel, dim, list(inputs), device=self.device)

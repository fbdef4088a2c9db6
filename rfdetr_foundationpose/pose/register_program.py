"""Registration: hypotheses refined together, the hopeless ones dropped between iterations, the rest scored."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ..accel.base import Runner
from ..config import schedule_counts
from .hypotheses import hypothesis_rotations
from .mesh import ObjectModel
from .renderer import Renderer
from .views import ViewSet

if TYPE_CHECKING:
    from .estimator import PoseFrame

PREVIEW_SIZE = 48
"""Rows and columns of the small renderings by which many hypotheses are compared cheaply."""
SCORED_WHEN_PRUNING = 64
"""From this many hypotheses on down, pruning asks the scorer; above, only the agreement with the image."""
AUTO_SCHEDULE = {"cuda": (1.0, 0.5, 0.25, 0.1, 0.06), "cpu": (0.25, 0.13, 0.06, 0.03, 0.03)}


@dataclass(frozen=True)
class Ranking:
    """scores: (M,) logits of the scored hypotheses, best first; poses: (M, 4, 4) T_cam_center of theirs."""

    scores: Tensor
    poses: Tensor


def parse_schedule(text: str, hypotheses: int, iterations: int, device: torch.device) -> tuple[int, ...]:
    """Hypotheses refined in each iteration, never growing. Raises ConfigError.

    "full": all in every iteration. "auto": a share of them that evaluation found to lose no accuracy on this kind of
    device. Else counts, e.g. "252,64,16,8,8"; the last one serves the remaining iterations.
    """
    if text == "full":
        return (hypotheses,) * iterations
    if text == "auto":
        shares = AUTO_SCHEDULE["cuda" if device.type == "cuda" else "cpu"]
        counts = [max(4, round(share * hypotheses)) for share in shares]
    else:
        counts = list(schedule_counts(text))
    counts += counts[-1:] * (iterations - len(counts))
    return tuple(min(c, hypotheses) for c in counts[:iterations])


class RegisterProgram:
    """Buffers and runners of registration, shared by all objects of one estimator."""

    def __init__(
        self,
        objects: Sequence[ObjectModel],
        renderer: Renderer,
        refiner: Runner,
        scorer: Runner,
        device: torch.device,
    ) -> None:
        self.objects = list(objects)
        self.device = device
        by_look: dict[bytes, Tensor] = {}
        self.rotations = [by_look.setdefault(o.symmetries.tobytes(), self._rotations(o)) for o in objects]
        self._renderer = renderer
        self._refiner = refiner
        self._scorer = scorer
        self._full: ViewSet | None = None
        self._preview: ViewSet | None = None

    def _rotations(self, item: ObjectModel) -> Tensor:
        return torch.tensor(hypothesis_rotations(item.symmetries), dtype=torch.float32, device=self.device)

    def run(self, frame: PoseFrame, index: int, translation: Tensor, kept: Sequence[int]) -> tuple[Tensor, Ranking]:
        """Row (24,) as of TrackProgram.result for object ``index``, and the ranking. translation: (3,) first guess, m."""
        rotations = self.rotations[index]
        image = (frame.rgb, frame.depth, frame.camera)
        total = len(rotations)
        full, preview = self._views(kept[0]), self._previews(total)
        preview.poses[:total, :3, :3] = rotations
        preview.poses[:total, :3, 3] = translation
        for views in (full, preview):
            views.model.fill_(index)
            views.diameters.fill_(self.objects[index].diameter)
        if kept[0] < total:
            preview.keep(self._agreement(preview, total, frame).topk(kept[0]).indices)
        full.poses[: kept[0]] = preview.poses[: kept[0]]

        for i, n in enumerate(kept):
            if i > 0 and n < kept[i - 1]:
                full.keep(self._best(full, kept[i - 1], n, frame))
            first = i == 0
            trans, rot = self._refiner(*full.pairs(n, *image, "refiner", shared=first))
            full.update(n, trans, rot)

        n = kept[-1]
        scores = self._score(full, n, frame)
        order = scores.argsort(descending=True)
        full.keep(order)
        ranking = Ranking(scores[order], full.poses[:n].clone())
        row = torch.cat([full.poses[0].flatten(), full.delta[0], full.agree(1, *image)[0]])
        return row, ranking

    def _best(self, views: ViewSet, count: int, wanted: int, frame: PoseFrame) -> Tensor:
        """Indices of the ``wanted`` best of the first ``count`` hypotheses."""
        if count <= SCORED_WHEN_PRUNING:
            return self._score(views, count, frame).topk(wanted).indices
        preview = self._previews(count)
        preview.poses[:count] = views.poses[:count]
        return self._agreement(preview, count, frame).topk(wanted).indices

    def _score(self, views: ViewSet, n: int, frame: PoseFrame) -> Tensor:
        (scores,) = self._scorer(*views.pairs(n, frame.rgb, frame.depth, frame.camera, "scorer"))
        return scores.reshape(n).clone()

    @staticmethod
    def _agreement(views: ViewSet, n: int, frame: PoseFrame) -> Tensor:
        """(n,) share of the model's pixels that agree in depth and colour, less those seen through."""
        counts = views.agree(n, frame.rgb, frame.depth, frame.camera)
        model, agree, _, violated, residual, color = counts.unbind(1)
        return (agree - 0.5 * residual - 2.0 * color - violated) / model.clamp(min=1.0)

    def _views(self, capacity: int) -> ViewSet:
        if self._full is None or self._full.capacity < capacity:
            # A runner with static inputs lends them; refiner and scorer, which take turns, have the same ones.
            lend = getattr(self._refiner, "inputs", None)
            self._full = ViewSet(
                self._renderer,
                capacity,
                self.device,
                dtype=self._refiner.dtype,
                compared=1,
                inputs=None if lend is None else lend(capacity),
            )
        return self._full

    def _previews(self, capacity: int) -> ViewSet:
        if self._preview is None or self._preview.capacity < capacity:
            self._preview = ViewSet(self._renderer, capacity, self.device, PREVIEW_SIZE, paired=False)
        return self._preview

"""Registration as one fixed-shape device program: hypotheses refined together, the hopeless ones dropped between
iterations, the rest scored."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..accel.base import Runner
from ..accel.graph import GraphedProgram, pool_of
from ..config import schedule_counts
from .agreement_kernels import DESCRIBED, RESULT_COLUMNS
from .confidence import Calibration
from .hypotheses import guess_translation
from .renderer import Renderer
from .views import ViewSet

PREVIEW_SIZE = 48
"""Rows and columns of the small renderings by which many hypotheses are compared cheaply."""
MIN_DEPTH_PIXELS = 4
"""Pixels of the mask with depth that a registration needs."""
FINALISTS = 8
"""Hypotheses, best by score, among which the confidence has a say."""
COARSE_FROM = 64
"""Hypotheses from which on, where none is dropped before the end, coarse runners are asked, if refiner and scorer offer such."""
REPEATED = 12
"""Best hypotheses by coarse scores that are refined and scored again, exactly: nearly always the best by exact scores, or one as
good, is among them (docs/accuracy.md)."""
UNSCORED = -1e9
"""Stands for an answer of the scorer that is not finite: less than any, while what else is known still counts."""
SCORED_WHEN_PRUNING = 64
"""From this many hypotheses on down, pruning asks the scorer; above, only the agreement with the image."""
SAME_TURN = math.radians(15)
"""Hypotheses that differ by less, rad, are copies of each other."""
SET_BACK = 1e4
"""More than scores differ by."""
HALF_TURNS = torch.tensor([[1.0, -1, -1, 1], [-1, 1, -1, 1], [-1, -1, 1, 1]])[:, None]
"""(3, 1, 4) signs of the columns of a pose: half a turn about each axis of the mesh, after which it looks the same but for
its print, or nearly so."""
AUTO_SCHEDULE = {"cuda": (1.0, 0.25, 0.13, 0.06, 0.03), "cpu": (0.25, 0.13, 0.06, 0.03, 0.03)}


@dataclass(frozen=True)
class Ranking:
    """scores: (M,) the scorer's own logits of the scored hypotheses, best first; UNSCORED where it gave none, -inf where the
    pose is not finite; where the first were refined again, exactly, those after them are coarse, and may be higher. poses:
    (M, 4, 4) T_cam_center of theirs. chosen: which of them was taken: 0, unless the confidence said otherwise."""

    scores: Tensor
    poses: Tensor
    chosen: int


@dataclass(frozen=True)
class Finalists:
    """The first K of a ranking, on the host. rows: (K, RESULT_COLUMNS) float64, see agreement_kernels; scores: (K,) float64, best
    first; pixels: of the mask, and those of them with depth. With fewer than MIN_DEPTH_PIXELS of the latter the rest
    means nothing, and may be missing."""

    rows: NDArray[np.float64]
    scores: NDArray[np.float64]
    pixels: tuple[int, int]

    @classmethod
    def unpack(cls, flat: NDArray[np.float64]) -> Finalists:
        """From what ``RegisterProgram.run`` packs: for each finalist its row and its score, then the pixels."""
        rows = flat[:-2].reshape(-1, RESULT_COLUMNS + 1)
        return cls(rows[:, :-1], rows[:, -1], (int(flat[-2]), int(flat[-1])))

    def best(self, calibration: Calibration, weight: float) -> int:
        """The finalist with the highest score plus ``weight`` times the log-odds of its confidence. One whose row is not
        finite is it only where all are like that."""
        usable = np.all(np.isfinite(self.rows), axis=1)
        described = np.where(usable[:, None], self.rows[:, DESCRIBED], 0.0)
        worth = self.scores + weight * calibration.log_odds(described)
        return int(np.where(usable, worth, -np.inf).argmax())


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


def scored_batches(kept: Sequence[int]) -> list[int]:
    """How many hypotheses the scorer is asked about, each number once: before pruning small sets, and at the end."""
    return sorted({kept[-1]} | {a for a, b in pairwise(kept) if b < a <= SCORED_WHEN_PRUNING})


class RegisterProgram:
    """Static buffers and the registration of one object over them; one CUDA graph launch where everything in it can be
    captured.

    rgb (H, W, 3) uint8, depth (H, W) float32 filtered m, camera (1, 4), mask (H, W) bool, rotations (total, 3, 3) of the
    first hypotheses and the object, by ``choose``, are inputs. kept: hypotheses of each iteration, see parse_schedule.
    """

    def __init__(
        self,
        renderer: Renderer,
        refiner: Runner,
        scorer: Runner,
        total: int,
        kept: Sequence[int],
        size: tuple[int, int],
        device: torch.device,
        log: Callable[[str], None] = print,
    ) -> None:
        self.kept = tuple(kept)
        self.finalists = min(FINALISTS, self.kept[-1])
        self.total = total
        self.size = size
        self.rgb = torch.zeros(*size, 3, dtype=torch.uint8, device=device)
        self.depth = torch.zeros(*size, device=device)
        self.camera = torch.ones(1, 4, device=device)
        self.mask = torch.zeros(*size, dtype=torch.bool, device=device)
        self.rotations = torch.eye(3, device=device).repeat(total, 1, 1)
        self._refiner: Runner = refiner
        self._scorer: Any = scorer
        # Runners may offer others that are faster and err more. Dropping hypotheses by what these say changes who is left.
        offered = hasattr(refiner, "coarse") and hasattr(scorer, "coarse") and hasattr(scorer, "vectors")
        self._again = offered and self.kept[-1] == self.kept[0] >= COARSE_FROM
        self._first_refiner: Runner = getattr(refiner, "coarse", refiner) if self._again else refiner
        self._first_scorer: Any = getattr(scorer, "coarse", scorer) if self._again else scorer
        if offered and not self._again:
            log(
                f"register {','.join(map(str, self.kept))}: {refiner.name} is for {COARSE_FROM} or more hypotheses of which "
                "none is dropped; this runs exactly"
            )
        self._prepare_runners()
        # A runner with static inputs lends them; refiner and scorer, which take turns, have the same ones.
        lend = getattr(refiner, "inputs", None)
        observed = max([*self.kept[1:], *scored_batches(self.kept)])  # the first iteration's hypotheses share one
        inputs = None if lend is None else lend(self.kept[0], observed)
        self.views = ViewSet(
            renderer,
            self.kept[0],
            device,
            dtype=refiner.dtype,
            compared=self.finalists,
            printed=True,
            inputs=inputs,
        )
        self._rows = torch.zeros(self.finalists, RESULT_COLUMNS + 1, device=device)
        self._turning = _where_to_turn(self.kept)
        self._half_turns = HALF_TURNS.to(device)
        self.preview = ViewSet(renderer, total, device, PREVIEW_SIZE, paired=False)
        self.graph = GraphedProgram(
            self.run,
            device,
            name=f"register {total} x {','.join(map(str, self.kept))}",
            pool=pool_of(refiner, "register", device),
            log=log,
            capture=renderer.capturable and refiner.capturable and scorer.capturable and refiner.name != "reference",
        )

    def choose(self, index: int, diameter: float, rotations: Tensor) -> None:
        """Make object ``index`` of the renderer the one that is registered. rotations: (total, 3, 3)."""
        self.rotations.copy_(rotations)
        for views in (self.views, self.preview):
            views.model.fill_(index)
            views.diameters.fill_(diameter)

    def __call__(self, rgb: Tensor, depth: Tensor, camera: Tensor, mask: Tensor) -> tuple[Finalists, Tensor, Tensor]:
        """The finalists, on the host; and scores (M,) and poses (M, 4, 4) of the ranking, on the device.

        Waits once; where nothing is captured twice, since a registration for nothing costs seconds on a CPU.
        """
        with torch.inference_mode():
            for buffer, values in ((self.rgb, rgb), (self.depth, depth), (self.camera, camera), (self.mask, mask)):
                buffer.copy_(values)
            if self.graph.will_capture:
                packed, scores, poses = self.graph()
            else:
                _, pixels = self._guess()
                if pixels[1] < MIN_DEPTH_PIXELS:
                    nothing = Finalists.unpack(pixels.double().cpu().numpy())
                    return nothing, torch.zeros(0), torch.zeros(0, 4, 4)
                packed, scores, poses = self.run()
            return Finalists.unpack(packed.double().cpu().numpy()), scores.clone(), poses.clone()

    def run(self) -> tuple[Tensor, Tensor, Tensor]:
        """Enqueue the registration; waits for nothing. What ``Finalists.unpack`` takes, for one small copy; scores (M,)
        best first, their poses (M, 4, 4)."""
        views, preview, kept = self.views, self.preview, self.kept
        translation, pixels = self._guess()
        preview.poses[:, :3, :3] = self.rotations
        preview.poses[:, :3, 3] = translation
        if kept[0] < self.total:
            preview.keep(self._agreement(self.total).topk(kept[0]).indices)
        views.poses.copy_(preview.poses[: kept[0]])

        for i, n in enumerate(kept):
            if i > 0 and n < kept[i - 1]:
                views.keep(self._best(kept[i - 1], n))
            if i == self._turning:
                self._turn_over(n)
            self._refine(self._first_refiner, n, shared=i == 0)

        n = kept[-1]
        vectors = self._first_scorer.vectors(*self._scored_pairs(n)).nan_to_num() if self._again else None
        scores = self._usable(self._score(n) if vectors is None else self._first_scorer.rank(vectors))
        order = scores.argsort(descending=True)
        views.keep(order)
        scores = scores[order]
        if vectors is not None:
            # None was dropped, so that the preview still has where each began.
            scores = self._repeat(preview.poses[order[:REPEATED]], vectors[order], scores)
        return torch.cat([self._compare(scores).flatten(), pixels]), scores, views.poses[:n]

    def _repeat(self, start: Tensor, vectors: Tensor, scores: Tensor) -> Tensor:
        """Refine and score the first hypotheses again, exactly, and rank them anew. start: (R, 4, 4) where they began. vectors:
        (M, C) of all, beside which they are ranked. scores: (M,) of all. The new scores of all."""
        n, views = len(start), self.views
        views.poses[:n] = start
        for i in range(len(self.kept)):
            self._refine(self._refiner, n, shared=i == 0)
        found = self._scorer.vectors(*self._scored_pairs(n))
        # Each is ranked beside all others: one that is not finite would make them all so.
        finite = found.isfinite().all(1)
        exact = torch.cat([torch.where(finite[:, None], found, vectors[:n]), vectors[n:]])
        first = self._usable(self._scorer.rank(exact))[:n].masked_fill(~finite, UNSCORED)
        order = first.argsort(descending=True)
        views.keep(order)
        return torch.cat([first[order], scores[n:]])

    def _usable(self, scores: Tensor) -> Tensor:
        """scores (N,) of the first N hypotheses, without NaN, which would come first and keep others out of the final."""
        scores = scores.nan_to_num(UNSCORED, UNSCORED, UNSCORED)
        return scores.masked_fill(~self.views.poses[: len(scores)].flatten(1).isfinite().all(1), -torch.inf)

    def _refine(self, refiner: Runner, n: int, *, shared: bool = False) -> None:
        """Move the first n hypotheses."""
        self.views.update(n, *refiner(*self.views.pairs(n, *self._image, "refiner", shared=shared)))

    def _compare(self, scores: Tensor) -> Tensor:
        """(K, RESULT_COLUMNS + 1) rows of the finalists, the first hypotheses, and what they have of ``scores`` (M,)."""
        rows, top = self._rows, self.finalists
        self.views.report(top, *self._image, rows)
        rows[:, RESULT_COLUMNS] = scores[:top]
        return rows

    def _turn_over(self, n: int) -> None:
        """Put the best hypothesis, turned by half about each axis of the mesh, in place of the last of the first n."""
        poses = self.views.poses
        poses[n - len(self._half_turns) : n] = poses[0] * self._half_turns

    def _guess(self) -> tuple[Tensor, Tensor]:
        """First translation (3,) m, and pixels of the mask and those of them with depth (2,), all float32."""
        translation, pixels, valid = guess_translation(self.depth, self.mask, camera_matrix(self.camera))
        return translation, torch.stack([pixels, valid]).float()

    @property
    def _image(self) -> tuple[Tensor, Tensor, Tensor]:
        return self.rgb, self.depth, self.camera

    def _prepare_runners(self) -> None:
        """Every batch that ``run`` asks for; nothing may be built during a capture."""
        for i, n in enumerate(self.kept):
            self._first_refiner.prepare(n, 1 if i == 0 else n)
        if self._again:
            for observed in (1, REPEATED):
                self._refiner.prepare(REPEATED, observed)
            self._scorer.prepare(REPEATED)
        for n in scored_batches(self.kept):
            self._first_scorer.prepare(n)

    def _best(self, count: int, wanted: int) -> Tensor:
        """Indices of the ``wanted`` best of the first ``count`` hypotheses, best first; copies of better ones come last."""
        poses = self.views.poses[:count]
        if count <= SCORED_WHEN_PRUNING:
            return _copies_last(self._score(count), poses).topk(wanted).indices
        self.preview.poses[:count] = poses
        return self._agreement(count).topk(wanted).indices

    def _score(self, n: int) -> Tensor:
        (scores,) = self._first_scorer(*self._scored_pairs(n))
        return scores.reshape(n).clone()

    def _scored_pairs(self, n: int) -> tuple[Tensor, Tensor]:
        return self.views.pairs(n, *self._image, "scorer")

    def _agreement(self, n: int) -> Tensor:
        """(n,) share of the preview's model pixels that agree in depth and colour, less those seen through."""
        counts = self.preview.agree(n, *self._image)
        model, agree, _, violated, residual, color = counts.unbind(1)
        return (agree - 0.5 * residual - 2.0 * color - violated) / model.clamp(min=1.0)


def _copies_last(scores: Tensor, poses: Tensor) -> Tensor:
    """scores (N,), less SET_BACK where a better hypothesis is turned almost the same. poses: (N, 4, 4).

    Refinement brings many together; one of them is enough while other sides of the object are still open.
    """
    rotations = poses[:, :3, :3].flatten(1)
    same = rotations @ rotations.T > 1 + 2 * math.cos(SAME_TURN)  # the trace of a turn by SAME_TURN
    better = scores[None] > scores[:, None]
    return scores - SET_BACK * (same & better).any(1)


def _where_to_turn(kept: Sequence[int]) -> int | None:
    """The iteration before which the best hypothesis is flipped: the last that prunes and has another one after it."""
    pruning = [i for i in range(1, len(kept) - 1) if len(HALF_TURNS) < kept[i] < kept[i - 1]]
    return pruning[-1] if pruning else None


def camera_matrix(camera: Tensor) -> Tensor:
    """(1, 4) fx, fy, cx, cy -> (3, 3) camera matrix on the same device."""
    fx, fy, cx, cy = camera[0]
    zero, one = torch.zeros_like(fx), torch.ones_like(fx)
    return torch.stack([fx, zero, cx, zero, fy, cy, zero, zero, one]).reshape(3, 3)

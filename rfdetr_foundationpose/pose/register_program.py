"""Registration as one fixed-shape device program: hypotheses refined together, the hopeless ones dropped between
iterations, the rest scored."""

from __future__ import annotations

import logging
import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from ..accel.base import Runner, ScoreRunner, Step, runner_for
from ..accel.graph import GraphedProgram, GraphPool
from .agreement_columns import RESULT_COLUMNS
from .alignment import Alignment
from .hypotheses import bounding_box, guess_translation
from .near_symmetries import MOST_TURNS
from .networks import FIRST_PASS_CROP
from .observation import Observation
from .pruning import SCORED_WHEN_PRUNING, Pruning
from .ranking import TopHypotheses
from .renderer import Renderer
from .runners import Networks
from .views import CropSettings, ViewSet

logger = logging.getLogger(__name__)

PREVIEW_SIZE = 48
"""Many hypotheses are compared cheaply by small renderings of so many rows and columns."""
MIN_DEPTH_PIXELS = 4
"""A registration needs so many pixels of the mask with depth."""
TOP_K = 8
"""The confidence has a say among so many hypotheses, best by score."""
COARSE_FROM = 64
"""Coarse runners are asked from so many hypotheses on, where none is dropped before the end and refiner and scorer have such."""
RESCORED = 12
"""So many hypotheses, best by coarse scores, are refined and scored again, exactly: nearly always the best by exact scores, or
one as good, is among them (docs/accuracy.md)."""
UNSCORED = -1e9
"""This stands for an answer of the scorer that is not finite: less than any, while what else is known still counts."""
SILHOUETTE_WEIGHT = 1.0
"""The overlap of silhouette and mask has this weight beside the agreement, when the preview compares hypotheses."""
MASK_MARGIN = 4
"""A mask may lack so many pixels of the object's rim."""
NEARER_PART = 0.5
"""From the nearer quarter of an object's visible surface to its median depth it is less than this, in diameters."""
SAME_TURN = math.radians(15)
"""Hypotheses that differ by less, rad, are copies of each other."""
SET_BACK = 1e4
"""A copy's score is lowered by this, which is more than scores differ by."""


@dataclass(frozen=True)
class _Coarse:
    """A refiner and a scorer that are faster and err more, and the exact scorer beside whose embeddings theirs are ranked."""

    refiner: Runner
    scorer: ScoreRunner
    exact: ScoreRunner


@dataclass(frozen=True)
class Look:
    """outlined: whether the mask is the object's silhouette, so that hypotheses can be held against it. alone: whether the
    networks see nothing of the image beyond the mask."""

    outlined: bool
    alone: bool = False


def _coarse(refiner: Runner, scorer: Runner) -> _Coarse | None:
    """The coarse runners of a refiner and a scorer that both have such for a registration that drops nothing."""
    if (
        Step.RESCORED not in refiner.coarse_for
        or refiner.coarse is None
        or not isinstance(scorer, ScoreRunner)
        or not isinstance(scorer.coarse, ScoreRunner)
    ):
        return None
    return _Coarse(refiner.coarse, scorer.coarse, scorer)


class RegisterProgram:
    """Static buffers and the registration of one object over them; one CUDA graph launch where everything in it can be
    captured.

    An observation, mask (H, W) bool, how they are looked at, and what ``choose`` takes of the object are inputs. networks: of which it runs ``register_refiner``, ``scorer`` and, where the schedule says so, ``first_pass``.
    size: (H, W) of the image. align: whether the top hypotheses are aligned with the image.
    """

    def __init__(
        self,
        renderer: Renderer,
        networks: Networks,
        total: int,
        pruning: Pruning,
        size: tuple[int, int],
        device: torch.device,
        align: bool = False,
    ) -> None:
        self.pruning = pruning
        self.kept = pruning.kept
        self.top_k = min(TOP_K, self.kept[-1])
        self.total = total
        self.size = size
        self._static = Observation.blank(size, device)
        self._observation = self._static
        self.mask = torch.zeros(*size, dtype=torch.bool, device=device)
        self._outlined = torch.zeros(1, device=device)
        self._look = Look(outlined=False)
        self._alone = torch.zeros(1, device=device)
        self._masked = self._seen = Observation.blank(size, device)
        self.rotations = torch.eye(3, device=device).repeat(total, 1, 1)
        refiner, scorer = self._refiner, self._scorer = networks.register_refiner, networks.scorer
        # Dropping hypotheses by what coarse runners say would change who is left.
        coarse = _coarse(refiner, scorer)
        self._coarse = coarse if self.kept[-1] == self.kept[0] >= COARSE_FROM else None
        if coarse is not None and self._coarse is None:
            counts = ",".join(map(str, self.kept))
            reason = f"is for {COARSE_FROM} or more hypotheses of which none is dropped; this runs exactly"
            logger.info("register %s: %s %s", counts, refiner.name, reason)
        self._first_refiner = refiner if self._coarse is None else self._coarse.refiner
        self._first_scorer = scorer if self._coarse is None else self._coarse.scorer
        # While hypotheses are still to be dropped; those that are left are refined exactly afterwards.
        self._dropping_refiner, self._dropping_scorer = (
            runner_for(Step.DROPPING, network) for network in (refiner, scorer)
        )
        self._first_pass = networks.first_pass if pruning.first_pass else None
        self._prepare_runners()
        # A runner with static inputs lends them; refiner and scorer, which take turns, have the same ones.
        observed = max([*self.kept[self._shared_iterations :], *pruning.scored])
        inputs = refiner.inputs(self.kept[0], observed)
        self.views = ViewSet(
            renderer,
            self.kept[0],
            device,
            CropSettings(
                dtype=refiner.dtype,
                compared=self.top_k,
                textured=True,
                outlined=True,
                official_crops=networks.official_crops,
            ),
            inputs=inputs,
        )
        self._alignment = Alignment(renderer, self.top_k, device) if align else None
        self._rows = torch.zeros(self.top_k, RESULT_COLUMNS + 2, device=device)
        self._turns = torch.eye(4, device=device).repeat(MOST_TURNS, 1, 1)
        self._turned = torch.zeros(MOST_TURNS, 1, 1, dtype=torch.bool, device=device)
        self.preview = ViewSet(renderer, total, device, CropSettings(PREVIEW_SIZE, paired=False, outlined=True))
        self._first_views: ViewSet | None = None
        if self._first_pass is not None:
            crops = CropSettings(FIRST_PASS_CROP, dtype=self._first_pass.dtype, compared=0)
            self._first_views = ViewSet(renderer, total, device, crops, inputs=self._first_pass.inputs(total, 1))
        self.graph = GraphedProgram(
            self.run,
            device,
            name=f"register {total} x {pruning}",
            pool=refiner.pool or GraphPool("register", device),
            capture=renderer.capturable
            and all(r.capturable for r in (refiner, scorer, self._first_pass) if r is not None),
        )

    def choose(self, index: int, diameter: float, rotations: Tensor, turns: Tensor) -> None:
        """Make object ``index`` of the renderer the one that is registered. rotations: (total, 3, 3) of the first hypotheses.
        turns: (M, 4, 4), see ``near_symmetries``. diameter: m."""
        self.rotations.copy_(rotations)
        self._turns[: len(turns)] = turns
        self._turned[: len(turns)] = True
        self._turned[len(turns) :] = False
        for views in (self.views, self.preview, self._first_views):
            if views is None:
                continue
            views.model.fill_(index)
            views.diameters.fill_(diameter)

    def __call__(self, observation: Observation, mask: Tensor, look: Look) -> tuple[TopHypotheses, Tensor, Tensor]:
        """The top hypotheses, on the host; and scores (M,) and poses (M, 4, 4) of the ranking, on the device.

        Waits once; where nothing is captured twice, since a registration for nothing costs seconds on a CPU.
        """
        with torch.inference_mode():
            self.mask.copy_(mask)
            self._outlined.fill_(float(look.outlined))
            self._alone.fill_(float(look.alone))
            self._look = look
            if self.graph.will_capture:
                own = self._observation = self._static
                own.copy_images(observation)
                own.camera.copy_(observation.camera)
                packed, scores, poses = self.graph()
            else:
                self._observation = observation
                _, pixels = self._guess()
                if pixels[1] < MIN_DEPTH_PIXELS:
                    nothing = TopHypotheses.unpack(pixels.double().cpu().numpy())
                    return nothing, torch.zeros(0), torch.zeros(0, 4, 4)
                packed, scores, poses = self.run()
            return TopHypotheses.unpack(packed.double().cpu().numpy()), scores.clone(), poses.clone()

    def run(self) -> tuple[Tensor, Tensor, Tensor]:
        """Enqueue the registration; waits for nothing. What ``TopHypotheses.unpack`` takes, for one small copy; scores (M,)
        best first, their poses (M, 4, 4)."""
        views, preview, kept = self.views, self.preview, self.kept
        translation, pixels = self._guess()
        self._seen = self._visible()
        preview.poses[:, :3, :3] = self.rotations
        preview.poses[:, :3, 3] = translation
        self._move_all_once()
        if kept[0] < self.total:
            preview.keep(self._agreement(self.total).topk(kept[0]).indices)
        views.poses.copy_(preview.poses[: kept[0]])

        for i, n in enumerate(kept):
            if i > 0 and n < kept[i - 1]:
                views.keep(self._best(kept[i - 1], n))
            if i == self.pruning.flipping:
                self._try_turns(n)
            self._refine(self._refiner_at(i), n, shared=i < self._shared_iterations)

        n = kept[-1]
        coarse = self._coarse
        embeddings = None if coarse is None else coarse.scorer.embed(*self._scored_pairs(n)).nan_to_num()
        scores = (
            self._score(self._first_scorer, n)
            if coarse is None or embeddings is None
            else coarse.scorer.rank(embeddings)
        )
        scores = self._usable(scores)
        order = scores.argsort(descending=True)
        views.keep(order)
        scores = scores[order]
        if coarse is not None and embeddings is not None:
            # None was dropped, so that the preview still has where each began.
            scores = self._rescore(coarse.exact, preview.poses[order[:RESCORED]], embeddings[order], scores)
        return torch.cat([self._compare(scores).flatten(), pixels]), scores, views.poses[:n]

    def _rescore(self, scorer: ScoreRunner, start: Tensor, embeddings: Tensor, scores: Tensor) -> Tensor:
        """Refine and score the first hypotheses again, exactly, and rank them anew. start: (R, 4, 4) where they began.
        embeddings: (M, C) of all, beside which they are ranked. scores: (M,) of all. The new scores of all."""
        n, views = len(start), self.views
        views.poses[:n] = start
        for i in range(len(self.kept)):
            self._refine(self._refiner, n, shared=i < self._shared_iterations)
        found = scorer.embed(*self._scored_pairs(n))
        # Each is ranked beside all others: one that is not finite would make them all so.
        finite = found.isfinite().all(1)
        exact = torch.cat([torch.where(finite[:, None], found, embeddings[:n]), embeddings[n:]])
        first = self._usable(scorer.rank(exact))[:n].masked_fill(~finite, UNSCORED)
        order = first.argsort(descending=True)
        views.keep(order)
        return torch.cat([first[order], scores[n:]])

    def _usable(self, scores: Tensor) -> Tensor:
        """scores (N,) of the first N hypotheses, without NaN, which would come first and keep others out of the top."""
        scores = scores.nan_to_num(UNSCORED, UNSCORED, UNSCORED)
        return scores.masked_fill(~self.views.poses[: len(scores)].flatten(1).isfinite().all(1), -torch.inf)

    def _move_all_once(self) -> None:
        """The first pass, of small crops: move all hypotheses, those of the preview."""
        first, views = self._first_pass, self._first_views
        if first is None or views is None:
            return
        views.poses.copy_(self.preview.poses)
        views.update(self.total, *first(*views.pairs(self.total, self._seen, "refiner", shared=True)))
        self.preview.poses.copy_(views.poses)

    def _refine(self, refiner: Runner, n: int, *, shared: bool = False) -> None:
        """Move the first n hypotheses."""
        self.views.update(n, *refiner(*self.views.pairs(n, self._seen, "refiner", shared=shared)))

    def _compare(self, scores: Tensor) -> Tensor:
        """(K, RESULT_COLUMNS + 2) rows of the top hypotheses, aligned, their overlaps, and what they have of ``scores`` (M,)."""
        rows, top = self._rows, self.top_k
        if self._alignment is not None:
            self._alignment(self.views, top, self._observation)
        self.views.report(top, self._observation, rows)
        rows[:, RESULT_COLUMNS] = self._overlap(self.views, top)
        rows[:, RESULT_COLUMNS + 1] = scores[:top]
        return rows

    def _try_turns(self, n: int) -> None:
        """Put the best hypothesis, after each turn that leaves the object's shape nearly as it was, in place of the last of the first n."""
        poses = self.views.poses
        count = min(len(self._turns), n // 2)
        # Summed rather than by a matrix product, whose TF32 would round rotations.
        turned = (poses[0, :, :, None] * self._turns[:count, None]).sum(2)
        poses[n - count : n] = torch.where(self._turned[:count], turned, poses[n - count : n])

    def _guess(self) -> tuple[Tensor, Tensor]:
        """First translation (3,) m, and pixels of the mask and those of them with depth (2,), all float32."""
        observation = self._observation
        box = None
        if observation.parts is not None:  # on a CPU, where reading the mask waits for nothing
            box = bounding_box(self.mask)
            observation.need(torch.tensor([[box[1].start, box[0].start, box[1].stop, box[0].stop]]).float())
        translation, pixels, valid = guess_translation(
            observation.depth, self.mask, camera_matrix(observation.camera), self._reach(), box
        )
        return translation, torch.stack([pixels, valid]).float()

    def _reach(self) -> Tensor:
        """(1,) m from the nearer part of the object's visible surface to the middle one, at most. How a mask that is no
        silhouette may err is not known: infinite."""
        return torch.where(self._outlined > 0, NEARER_PART * self.preview.diameters[:1], torch.inf)

    def _visible(self) -> Observation:
        """What the networks see: all, or the object alone."""
        observation = self._observation
        if observation.parts is not None:  # on a CPU, where nothing is captured
            if not self._look.alone:
                return observation
            rows, columns = bounding_box(self.mask)
            margin = MASK_MARGIN
            window = [columns.start - margin, rows.start - margin, columns.stop + margin, rows.stop + margin]
            observation.need(torch.tensor([window]).float())
        self._masked.restrict(observation, _grown(self.mask, MASK_MARGIN) | (self._alone == 0))
        self._masked.camera.copy_(observation.camera)
        return self._masked

    def _prepare_runners(self) -> None:
        """Every batch that ``run`` asks for; nothing may be built during a capture."""
        for i, n in enumerate(self.kept):
            self._refiner_at(i).prepare(n, 1 if i < self._shared_iterations else n)
        if self._first_pass is not None:
            self._first_pass.prepare(self.total, 1)
        if self._coarse is not None:
            for observed in (1, RESCORED):
                self._refiner.prepare(RESCORED, observed)
            self._scorer.prepare(RESCORED)
        for n in self.pruning.scored:
            (self._first_scorer if n == self.kept[-1] else self._dropping_scorer).prepare(n)

    @property
    def _shared_iterations(self) -> int:
        """Iterations whose hypotheses have one translation, so that one observed crop serves all: the first, while none was moved."""
        return 0 if self.pruning.first_pass else 1

    def _refiner_at(self, iteration: int) -> Runner:
        return self._dropping_refiner if self.kept[iteration] > self.kept[-1] else self._first_refiner

    def _best(self, count: int, wanted: int) -> Tensor:
        """Indices of the ``wanted`` best of the first ``count`` hypotheses, best first; copies of better ones come last."""
        poses = self.views.poses[:count]
        if count <= SCORED_WHEN_PRUNING:
            return _copies_last(self._score(self._dropping_scorer, count), poses).topk(wanted).indices
        self.preview.poses[:count] = poses
        return self._agreement(count).topk(wanted).indices

    def _score(self, scorer: Runner, n: int) -> Tensor:
        (scores,) = scorer(*self._scored_pairs(n))
        return scores.reshape(n).clone()

    def _scored_pairs(self, n: int) -> tuple[Tensor, Tensor]:
        return self.views.pairs(n, self._seen, "scorer")

    def _agreement(self, n: int) -> Tensor:
        """(n,) share of the preview's model pixels that agree in depth and colour, less those seen through, and how the
        silhouette overlaps the mask."""
        counts = self.preview.agree(n, self._seen)
        model, agree, _, violated, residual, color = counts.unbind(1)
        inner = (agree - 0.5 * residual - 2.0 * color - violated) / model.clamp(min=1.0)
        return inner + SILHOUETTE_WEIGHT * self._overlap(self.preview, n)

    def _overlap(self, views: ViewSet, n: int) -> Tensor:
        """(n,) of ``views`` that were just compared; 0 where the mask is no silhouette."""
        return views.overlap(n, self.mask) * self._outlined


def _copies_last(scores: Tensor, poses: Tensor) -> Tensor:
    """scores (N,), less SET_BACK where a better hypothesis is turned almost the same. poses: (N, 4, 4).

    Refinement brings many together; one of them is enough while other sides of the object are still open.
    """
    rotations = poses[:, :3, :3].flatten(1)
    same = rotations @ rotations.T > 1 + 2 * math.cos(SAME_TURN)  # the trace of a turn by SAME_TURN
    better = scores[None] > scores[:, None]
    return scores - SET_BACK * (same & better).any(1)


def _grown(mask: Tensor, pixels: int) -> Tensor:
    """A mask (H, W) bool, larger by so many pixels on every side."""
    side = 2 * pixels + 1
    rows = F.max_pool2d(mask[None].float(), (side, 1), stride=1, padding=(pixels, 0))
    return F.max_pool2d(rows, (1, side), stride=1, padding=(0, pixels))[0] > 0


def camera_matrix(camera: Tensor) -> Tensor:
    """(1, 4) fx, fy, cx, cy -> (3, 3) camera matrix on the same device."""
    fx, fy, cx, cy = camera[0]
    zero, one = torch.zeros_like(fx), torch.ones_like(fx)
    return torch.stack([fx, zero, cx, zero, fy, cy, zero, zero, one]).reshape(3, 3)

"""One training step of RF-DETR, and what it needs: network, running average, optimizer, and their state on disk.

rfdetr's own network and its own loss (detector_loss), without its data loading: scenes are rendered where they are
needed. A DETR is slow to learn from nothing, so two small heads that are thrown away afterwards show every token
directly which object it sees and where that object's box is.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from torch import Tensor, nn

from ..config import ConfigError
from ..detect import rfdetr_library as library
from ..detect.checkpoint import save
from .detector_backbone import NarrowBackbone
from .detector_data import DetectorBatch, ScenePool
from .detector_heads import TokenHeads
from .detector_loss import detection_loss
from .detector_selection import quicken
from .detector_start import RANDOM, Start, has_masks, load_start, take_over, with_masks
from .progress import learning_rate, save_state

logger = logging.getLogger(__name__)

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)

RANDOM_RATE, TUNING_RATE, HEAD_RATE = 4e-4, 3e-4, 1.5e-3
"""The learning rate peaks at these for 256 images a step; for smaller steps it falls with the root of their size. The last
is that of a head for masks on a network that stays as it is."""
BYTES_PER_IMAGE, BYTES_OF_MASKS, RESERVED_BYTES = 130e6, 150e6, 2e9
"""One 384 x 384 image takes so much memory in a training step, so much more where masks are learned, and network, optimizer
and CUDA so much besides."""
MASKED = 0.25
"""Beside boxes, masks are learned on this share of the images of a step: on all of them they would take as long as all else."""
HEAD_FIRST = 200
"""For so many steps a new head for masks on trained weights learns without moving what it looks at: its first gradients are
ten times all others."""

# This is half the ViT of RF-DETR Nano with a fifth of its queries: enough for a handful of objects, and twice as fast on a CPU.
SMALL_NANO: dict[str, Any] = {
    "resolution": 384,
    "positional_encoding_size": 24,
    "out_feature_indexes": [2, 4, 6],
    "dec_layers": 2,
    "num_queries": 64,
    "num_select": 64,
}


@dataclass(frozen=True)
class TrainSettings:
    """minutes: of training over all calls, rendering and evaluation not counted; stop_after: minutes after which this
    call saves and ends, all counted. start: "default" (shipped weights), "published", "random" or a checkpoint's path.

    variant: of a start that is published or does not say. resolution: network input in pixels, 0: as the start has it.
    config: fields of the variant's ModelConfig that differ from its defaults, None: those of the start.
    batch: images a step; pool: images kept on the device; learning_rate: its peak; evaluation_scenes: held-out scenes of
    the final measurement; 0: chosen for the device. scene_size: rendered height, width.
    crossed: share of the scenes in which a bar cuts an object in two. distractors, surfaces: how many other things and
    how many textures of tables and walls the scenes are made of. render_share: seconds of rendering new scenes to a
    second of training. dataset: folder in COCO layout (train/, valid/) to learn from instead of rendered scenes.
    compile: run the backbone through torch.compile where that works. least_steps: fewer are no result.
    masks: "yes" to learn masks beside boxes, "no", "only" to learn the head for masks alone on a start that knows all
    classes and stays as it is, "auto" for "yes" where the data has outlines.
    """

    out: Path
    minutes: float = 9.0
    stop_after: float = 1e6
    start: str = "default"
    variant: str = "nano"
    resolution: int = 0
    config: dict[str, Any] | None = None
    dataset: Path | None = None
    groups: int = 9
    batch: int = 0
    learning_rate: float = 0.0
    device: str = "cuda"
    seed: int = 0
    pool: int = 0
    scene_size: tuple[int, int] = (384, 512)
    crossed: float = 0.3
    distractors: int = 96
    surfaces: int = 64
    render_share: float = 0.25
    evaluation_scenes: int = 0
    compile: bool = False
    least_steps: int = 100
    masks: str = "auto"

    def for_device(self) -> TrainSettings:
        """The same with every 0 replaced by what suits the device."""
        cuda = self.device.startswith("cuda")
        free = torch.cuda.mem_get_info(torch.device(self.device))[0] if cuda else 0
        # BYTES_PER_IMAGE is an estimate, on the safe side. A quarter of what is free may hold scenes.
        only = self.masks == "only"
        image = BYTES_OF_MASKS if only else BYTES_PER_IMAGE + MASKED * BYTES_OF_MASKS * (self.masks == "yes")
        fits = int((free - RESERVED_BYTES) / image / (max(self.resolution, 384) / 384) ** 2) if cuda else 8
        batch = self.batch or max(min(fits // 8 * 8, 128 if only else 256), 8)
        scene = 4 * self.scene_size[0] * self.scene_size[1]
        pool = self.pool or (max(min(int(0.25 * free / scene), 16384), 512) if cuda else 2048)
        peak = HEAD_RATE if only else RANDOM_RATE if self.start == RANDOM else TUNING_RATE
        return replace(
            self,
            batch=batch,
            groups=1 if only else self.groups,
            pool=pool,
            learning_rate=self.learning_rate or peak * math.sqrt(min(batch, 256) / 256),
            evaluation_scenes=self.evaluation_scenes or (400 if cuda else 60),
        )


class Trainer:
    """Network, heads, average and optimizer, with their state on disk. origin: what the weights were, for people. masks:
    whether the network finds masks.

    names: the classes. Raises DetectorError for a start that cannot be loaded, ConfigError for one that cannot stay as it is.
    """

    def __init__(self, settings: TrainSettings, names: Sequence[str]) -> None:
        settings = settings.for_device()
        self.settings = settings
        self.names = list(names)
        self.device = torch.device(settings.device)
        torch.manual_seed(settings.seed)
        start = load_start(settings.start, settings.variant)
        self.variant, self.config = _network_config(settings, start)
        self.masks = has_masks(self.variant)
        self.network = self._make(settings.groups).to(self.device).train()
        # Its shape tensor is made once, not copied from the host on every step.
        self.network.transformer.enable_cuda_graph_capture()  # type: ignore[union-attr,operator]
        self.average = self._make(settings.groups).to(self.device).eval().requires_grad_(False)
        self.heads = TokenHeads(int(self.network.transformer.d_model), len(self.names)).to(self.device)  # type: ignore[union-attr,arg-type]
        self.origin = "random weights"
        if start is not None:
            known = take_over(self.network, start, self.names)
            new = [name for name in self.names if name not in known]
            self.origin = start.description + (f"; new classes: {', '.join(new)}" if new else "")
        self._alone = settings.masks == "only"
        if self._alone:
            _check_alone(start, self.config, self.names)
            for module in (self.network, self.heads):
                module.requires_grad_(False)
            self.network.segmentation_head.requires_grad_(True)  # type: ignore[union-attr,operator]
        self._head_first = self.masks and start is not None and not has_masks(start.variant)
        if self.masks:
            self._watch_head()
        self.average.load_state_dict(self.network.state_dict())
        first: nn.Module = self.network.backbone[0]  # type: ignore[union-attr,index,assignment]
        self.backbone = NarrowBackbone(first, torch.bfloat16 if self.device.type == "cuda" else torch.float32)
        first.forward = self.backbone  # type: ignore[method-assign]
        quicken(self.network.transformer)
        self.optimizer = torch.optim.AdamW(
            _parameter_groups([self.network, self.heads]),
            lr=settings.learning_rate,
            betas=(0.9, 0.98),
            fused=self.device.type == "cuda",
        )
        self.step, self.spent = 0, 0.0
        self._mean = torch.tensor(MEAN, device=self.device)
        self._std = torch.tensor(STD, device=self.device)

    @property
    def size(self) -> int:
        return int(self.config.get("resolution", library.default_config(self.variant).resolution))

    def _make(self, groups: int) -> nn.Module:
        model = library.construct(self.variant, "cpu", num_classes=len(self.names), group_detr=groups, **self.config)
        net = library.network(model)
        library.truncate_encoder(net)
        _place_positions(net)
        return net

    def train_step(self, batch: DetectorBatch, rate: float) -> dict[str, Tensor]:
        """One update; returns the losses as device scalars."""
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        total, losses = self.losses(batch)
        self.optimizer.zero_grad(set_to_none=True)
        total.backward()
        norm = nn.utils.clip_grad_norm_([*self.network.parameters(), *self.heads.parameters()], 1.0)
        self.optimizer.step()
        self.step += 1
        _average(self.average, self.network, min(0.999, self.step / (self.step + 30)))
        return {k: v.detach() for k, v in losses.items()} | {"norm": norm}

    def losses(self, batch: DetectorBatch) -> tuple[Tensor, dict[str, Tensor]]:
        """What is minimized, and its parts."""
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.backbone.dtype == torch.bfloat16):
            outputs = self.network(_nested(batch.image))
            tokens = None if self._alone else self.heads(self.backbone.narrow, batch)
        if self._alone:  # only what is used later
            outputs = {key: outputs[key] for key in ("pred_logits", "pred_boxes", "pred_masks")}
        masks = batch.masks.first(self._masked(len(batch.image))) if self.masks else None
        losses = detection_loss(outputs, batch.targets, self.settings.groups, masks)
        if tokens is not None:
            losses["tokens"] = tokens
        minimized = () if self._alone else ("class", "l1", "giou", "tokens")
        total = torch.stack(
            [losses[key] for key in (*minimized, *(("mask_ce", "mask_dice") if self.masks else ()))]
        ).sum()
        return total, losses

    def _masked(self, batch: int) -> int:
        """How many images of a batch learn masks."""
        return batch if self._alone else math.ceil(MASKED * batch)

    def _watch_head(self) -> None:
        """Let the head see its share of the images, and its gradients go no further while ``HEAD_FIRST`` says so."""
        head: Any = self.network.segmentation_head
        forward = head.sparse_forward

        def some(features: Tensor, queries: Any, *more: Any, **options: Any) -> Any:
            count = self._masked(len(features))
            features, queries = features[:count], [q[:count] for q in queries]
            if self._head_first and self.step < HEAD_FIRST:
                features, queries = features.detach(), [q.detach() for q in queries]
            return forward(features, queries, *more, **options)

        head.sparse_forward = some

    def compile(self, batch: DetectorBatch) -> None:
        """Compile the backbone, trying it on a batch; where that fails, say why and go on without."""
        self.backbone.compile()
        try:
            self.losses(batch)[0].backward()
        except Exception as error:
            reason = "\n".join(str(error).strip().splitlines()[:5])
            logger.warning(f"training without --compile: {type(error).__name__}: {reason}")
            self.backbone.run_eagerly()
        finally:
            self.optimizer.zero_grad(set_to_none=True)

    def draw(self, pool: ScenePool) -> DetectorBatch:
        return pool.draw(self.settings.batch, self.size, self._mean, self._std)

    def rate(self, done: float) -> float:
        """Learning rate of the next step. done: share of the budget spent."""
        return learning_rate(self.settings.learning_rate, self.step, done)

    def save_state(self, path: Path) -> None:
        """Everything that a later call goes on from; the file is whole or the one before."""
        save_state(
            path,
            {
                "network": self.network.state_dict(),
                "average": self.average.state_dict(),
                "heads": self.heads.state_dict(),
                "optimizer": self.optimizer.state_dict(),
                "step": self.step,
                "spent": self.spent,
                "names": self.names,
                "network_config": self._identity(),
            },
        )

    def _identity(self) -> dict[str, Any]:
        """What a state must share with the training that goes on from it."""
        trained = "masks alone" if self._alone else "all"
        return {"variant": self.variant, **self.config, "groups": self.settings.groups, "trained part": trained}

    def load_state(self, path: Path) -> None:
        """Resume. Raises ConfigError when the state is of other classes or another network, or no state at all."""
        anew = f"remove {path} to start anew, or choose another --out"
        try:
            saved = torch.load(path, map_location=self.device, weights_only=True)
            names, network = saved["names"], saved["network_config"]
        except (OSError, RuntimeError, KeyError, EOFError, UnpicklingError) as error:
            raise ConfigError(f"{path} is no training state ({type(error).__name__}); {anew}") from error
        if names != self.names:
            raise ConfigError(f"{path} was trained on {', '.join(names)}, not on {', '.join(self.names)}; {anew}")
        own = self._identity()
        if network != own:
            changed = sorted(k for k in {*network, *own} if network.get(k) != own.get(k))
            raise ConfigError(f"{path} is of a network with another {', '.join(changed)}; {anew}")
        self.network.load_state_dict(saved["network"])
        self.average.load_state_dict(saved["average"])
        self.heads.load_state_dict(saved["heads"])
        self.optimizer.load_state_dict(saved["optimizer"])
        self.step, self.spent = saved["step"], saved["spent"]

    def export(self, path: Path) -> None:
        """The averaged network as a detector checkpoint."""
        save(
            path,
            self.average,
            variant=self.variant,
            config={**self.config, "group_detr": self.settings.groups},
            class_names=self.names,
        )


def _network_config(settings: TrainSettings, start: Start | None) -> tuple[str, dict[str, Any]]:
    """Variant, and the ModelConfig fields that differ from its defaults."""
    variant = settings.variant if start is None else start.variant
    if settings.config is not None:
        config = dict(settings.config)
    elif start is not None:
        config = dict(start.config)
    else:  # its sizes are those of a variant without masks
        variant, config = library.WITHOUT_MASKS.get(variant, variant), dict(SMALL_NANO)
    masks = has_masks(settings.variant if start is None else variant)
    variant, config = with_masks(variant, config, masks if settings.masks == "auto" else settings.masks != "no")
    if settings.resolution:
        patch = int(config.get("patch_size", library.default_config(variant).patch_size))
        config |= {"resolution": settings.resolution, "positional_encoding_size": settings.resolution // patch}
    network = {**library.default_config(variant).model_dump(), **config}
    tokens, queries = (int(network["resolution"]) // int(network["patch_size"])) ** 2, int(network["num_queries"])
    if tokens < queries:
        raise ConfigError(
            f"resolution {network['resolution']} gives {tokens} tokens to choose {queries} queries from; it must be at least "
            f"{int(network['patch_size']) * math.isqrt(queries - 1) + int(network['patch_size'])}"
        )
    return variant, config


def _check_alone(start: Start | None, config: dict[str, Any], names: Sequence[str]) -> None:
    """Raises ConfigError where a start cannot stay as it is."""
    if start is None:
        raise ConfigError("--masks only adds masks to a detector that finds the objects already; name it with --start")
    new = [name for name in names if name not in start.classes.values()]
    if new:
        raise ConfigError(
            f"--masks only leaves boxes and classes as they are, but {start.description} does not know {', '.join(new)}; use "
            "--masks yes, or a --start that was trained for all classes"
        )
    own = with_masks(start.variant, start.config, masks=True)[1]
    if changed := sorted(k for k in {*own, *config} if own.get(k) != config.get(k)):
        raise ConfigError(
            f"--masks only leaves the network of {start.description} as it is, also its {', '.join(changed)}"
        )


def _nested(image: Tensor) -> Any:
    """rfdetr's batch type without padding; its own constructor would copy image by image."""
    from rfdetr.utilities.tensors import NestedTensor

    return NestedTensor(image, torch.zeros(image.shape[:1] + image.shape[2:], dtype=torch.bool, device=image.device))


def _parameter_groups(modules: Sequence[nn.Module]) -> list[dict[str, Any]]:
    """Weight decay for matrices only."""
    decayed: list[Tensor] = []
    plain: list[Tensor] = []
    for module in modules:
        for name, parameter in module.named_parameters():
            if not parameter.requires_grad:
                continue
            embedding = "embed" in name and name.endswith(("embeddings", "refpoint_embed.weight", "query_feat.weight"))
            (plain if parameter.dim() < 2 or embedding or "token" in name else decayed).append(parameter)
    return [{"params": decayed, "weight_decay": 0.05}, {"params": plain, "weight_decay": 0.0}]


@torch.no_grad()
def _place_positions(net: nn.Module) -> None:
    """Start the ViT's learned positions from sines: from noise it would first have to learn that near is near."""
    embedding = net.backbone[0].encoder.encoder.embeddings.position_embeddings  # type: ignore[union-attr,index]
    side, width = math.isqrt(embedding.shape[1] - 1), embedding.shape[2]
    frequency = 100.0 ** -(torch.arange(width // 4) / (width // 4))
    angle = torch.arange(side)[:, None] * frequency
    line = torch.cat([angle.sin(), angle.cos()], 1) * 0.5
    x = line[None].expand(side, side, -1)
    y = line[:, None].expand(side, side, -1)
    embedding[0, 1:] = torch.cat([y, x], -1).flatten(0, 1)


@torch.no_grad()
def _average(average: nn.Module, network: nn.Module, decay: float) -> None:
    torch._foreach_lerp_(list(average.parameters()), list(network.parameters()), 1 - decay)

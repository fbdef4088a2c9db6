"""Training of RF-DETR on generated scenes, from random weights or from a checkpoint, on one device.

rfdetr's own network and its own loss (detector_loss), without its data loading: scenes are rendered where they are
needed. A DETR is slow to learn from nothing, so two small heads that are thrown away afterwards show every token
directly which object it sees and where that object's box is.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..config import DetectorConfig
from ..detect import rfdetr_library as library
from ..detect.checkpoint import load_file, save
from ..detect.rfdetr_detector import RfDetrDetector
from ..objects import ObjectSpec
from ..pose.mesh import ObjectModel
from ..synth.objects import SynthObject
from ..synth.scene import SceneSampler
from .coco_source import CocoSource, DatasetError
from .detector_backbone import NarrowBackbone
from .detector_data import DetectorBatch, ScenePool, Source
from .detector_eval import evaluate
from .detector_heads import TokenHeads
from .detector_loss import detection_loss
from .detector_selection import quicken

# Seeds from here on are for measuring, never for training.
EVALUATION_SEED = 1_000_003
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)

# Half the ViT of RF-DETR Nano and a fifth of its queries: enough for a handful of objects, and twice as fast on a CPU.
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
    """minutes: budget of the whole schedule; stop_after: minutes of this call. batch: images a step.

    config: fields of the variant's ModelConfig that differ from its defaults. scene_size: rendered height, width.
    crossed: share of the scenes in which a bar cuts an object in two.
    render_share: share of the time that may go into new scenes. start: weights to fine-tune, or None for random ones.
    dataset: folder in COCO layout (train/, valid/) to learn from instead of rendered scenes.
    compile: run the backbone through torch.compile where that works.
    """

    out: Path
    minutes: float = 9.0
    stop_after: float = 9.0
    variant: str = "nano"
    config: dict[str, Any] | None = None
    start: Path | None = None
    dataset: Path | None = None
    groups: int = 9
    batch: int = 256
    learning_rate: float = 4e-4
    device: str = "cuda"
    seed: int = 0
    pool: int = 16384
    scene_size: tuple[int, int] = (384, 512)
    crossed: float = 0.3
    render_share: float = 0.2
    evaluation_scenes: int = 400
    compile: bool = False


class Trainer:
    """Network, heads, average and optimizer, with their state on disk."""

    def __init__(self, settings: TrainSettings, names: Sequence[str], progress: Callable[[str], None]) -> None:
        self.settings = settings
        self.names = list(names)
        self.device = torch.device(settings.device)
        self.progress = progress
        torch.manual_seed(settings.seed)
        self.config = dict(SMALL_NANO if settings.config is None else settings.config)
        self.network = self._make(settings.groups).to(self.device).train()
        # Its shape tensor is made once, not copied from the host on every step.
        self.network.transformer.enable_cuda_graph_capture()  # type: ignore[union-attr,operator]
        self.average = self._make(settings.groups).to(self.device).eval().requires_grad_(False)
        self.heads = TokenHeads(int(self.network.transformer.d_model), len(self.names)).to(self.device)  # type: ignore[union-attr,arg-type]
        if settings.start is not None:
            self._start_from(settings.start)
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
        return int(self.config.get("resolution", 384))

    def _make(self, groups: int) -> nn.Module:
        model = library.construct(
            self.settings.variant, "cpu", num_classes=len(self.names), group_detr=groups, **self.config
        )
        net = library.network(model)
        library.truncate_encoder(net)
        _place_positions(net)
        return net

    def _start_from(self, path: Path) -> None:
        """Take over every tensor of a checkpoint that fits; the class head is new when the classes differ."""
        loaded = library.network(load_file(path, self.settings.variant, torch.device("cpu")).model).state_dict()
        own = self.network.state_dict()
        for name, tensor in own.items():
            group = _group(name)
            source = loaded.get(name.replace(f".{group}.", ".0.", 1) if group else name)
            if source is None:
                continue
            if name in ("refpoint_embed.weight", "query_feat.weight") and tensor.shape[0] % source.shape[0] == 0:
                copies = source.repeat(tensor.shape[0] // source.shape[0], 1)
                copies[source.shape[0] :] += _little_noise(copies[source.shape[0] :])
                tensor.copy_(copies)
            elif source.shape == tensor.shape:
                tensor.copy_(source + _little_noise(source) if group not in ("", "0") else source)
        self.progress(f"started from {path.name}")

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
            tokens = self.heads(self.backbone.narrow, batch)
        losses = detection_loss(outputs, batch.targets, self.settings.groups) | {"tokens": tokens}
        return losses["class"] + losses["l1"] + losses["giou"] + tokens, losses

    def compile(self, batch: DetectorBatch) -> None:
        """Compile the backbone, trying it on a batch; where that fails, say why and go on without."""
        self.backbone.compile()
        try:
            self.losses(batch)[0].backward()
        except Exception as error:
            reason = "\n".join(str(error).strip().splitlines()[:5])
            self.progress(f"training without --compile: {type(error).__name__}: {reason}")
            self.backbone.run_eagerly()
        finally:
            self.optimizer.zero_grad(set_to_none=True)

    def draw(self, pool: ScenePool) -> DetectorBatch:
        return pool.draw(self.settings.batch, self.size, self._mean, self._std)

    def rate(self, done: float) -> float:
        """Warm-up over 300 steps, cosine over the budget."""
        warm = min(1.0, (self.step + 1) / 300)
        return max(self.settings.learning_rate * warm * 0.5 * (1 + math.cos(math.pi * min(done, 1.0))), 1e-6)

    def save_state(self, path: Path) -> None:
        torch.save(
            {
                "network": self.network.state_dict(),
                "average": self.average.state_dict(),
                "heads": self.heads.state_dict(),
                "optimizer": self.optimizer.state_dict(),
                "step": self.step,
                "spent": self.spent,
                "names": self.names,
            },
            path,
        )

    def load_state(self, path: Path) -> None:
        """Resume. Raises ValueError when the state is of other classes."""
        saved = torch.load(path, map_location=self.device, weights_only=True)
        if saved["names"] != self.names:
            raise ValueError(f"{path} was trained on {saved['names']}, not on {self.names}; remove it to start anew")
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
            variant=self.settings.variant,
            config={**self.config, "group_detr": self.settings.groups},
            class_names=self.names,
        )


def train(
    settings: TrainSettings,
    objects: Sequence[SynthObject | ObjectModel],
    progress: Callable[[str], None] = print,
    *,
    labels: Sequence[str] | None = None,
) -> dict[str, float]:
    """Train or resume ``out/detector.train.pt``; write ``out/detector.safetensors`` and ``out/detector.jsonl``.

    labels: class name of each object, by default its name. Returns the metrics on scenes of a seed that training never saw.
    """
    begin = time.monotonic()
    out = settings.out
    out.mkdir(parents=True, exist_ok=True)
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = True
    torch.backends.cudnn.benchmark = True
    device = torch.device(settings.device)
    if settings.dataset is not None:
        source: Source = CocoSource(settings.dataset / "train", device, settings.scene_size, settings.seed)
        labels = source.names
    else:
        labels = [o.name for o in objects] if labels is None else list(labels)
    trainer = Trainer(settings, labels, progress)
    state = out / "detector.train.pt"
    if state.is_file():
        trainer.load_state(state)
        progress(f"resumed at step {trainer.step}, {trainer.spent / 60:.1f} min")
    if settings.dataset is None:
        # A resumed run sees new scenes.
        seed = settings.seed * 1000 + trainer.step
        source = SceneSampler(objects, device, settings.scene_size, seed, crossed=settings.crossed)
    pool = ScenePool(source, settings.pool, seed=settings.seed + trainer.step)
    first = min(settings.pool, max(settings.batch * 4, 512))
    seconds = _fill(pool, first, trainer.device)
    if settings.compile:
        trainer.compile(trainer.draw(pool))
    progress(f"ready after {time.monotonic() - begin:.0f} s; {first / seconds:.0f} scenes/s rendered")

    started, before = time.monotonic(), trainer.spent
    rendering = 0.0
    with (out / "detector.jsonl").open("a") as log:
        running = _Running(settings.batch)
        while True:
            now = time.monotonic() - started
            trainer.spent = before + now
            done = trainer.spent / (settings.minutes * 60)
            if done >= 1.0 or time.monotonic() - begin > settings.stop_after * 60:
                break
            if trainer.step % 8 == 0 and rendering < settings.render_share * now:
                rendering += _fill(pool, 64, trainer.device)
            rate = trainer.rate(done)
            running.add(trainer.train_step(trainer.draw(pool), rate))
            if trainer.step % 100 == 0:
                line = running.means() | {
                    "step": trainer.step,
                    "minutes": trainer.spent / 60,
                    "rate": rate,
                    "scenes": pool.rendered,
                }
                log.write(json.dumps(line) + "\n")
                log.flush()
                progress(" ".join(f"{k}={v:.4g}" for k, v in line.items()))
        trainer.save_state(state)
        trainer.export(out / "detector.safetensors")
        metrics = evaluate_file(out / "detector.safetensors", objects, labels, settings)
        log.write(json.dumps({"evaluation": metrics, "step": trainer.step}) + "\n")
        progress("evaluation " + " ".join(f"{k}={v:.4g}" for k, v in metrics.items()))
    return metrics


def evaluate_file(
    path: Path, objects: Sequence[SynthObject | ObjectModel], labels: Sequence[str], settings: TrainSettings
) -> dict[str, float]:
    """Metrics of a checkpoint on held-out images of VGA size, through the detector as it is used.

    They are scenes of a seed that training never saw, with the same of half as many scenes that all have a bar across
    an object as "crossed_...", or the valid split of the data set.
    """
    device = torch.device(settings.device)
    names = [f"class_{i}" for i in range(len(labels))]
    specs = [ObjectSpec(name, Path(name), label=label) for name, label in zip(names, labels, strict=True)]
    backend = "half" if device.type == "cuda" else "eager"
    loaded = load_file(path, settings.variant, device)
    detector = RfDetrDetector(loaded, specs, DetectorConfig(backend=backend, mask="box"), device, log=lambda _: None)
    if settings.dataset is None:
        count = settings.evaluation_scenes
        plain, crossed = (SceneSampler(objects, device, (480, 640), EVALUATION_SEED, crossed=c) for c in (0.0, 1.0))
        cut = evaluate(detector, crossed, max(count // 2, 1), names)
        return evaluate(detector, plain, count, names) | {f"crossed_{key}": value for key, value in cut.items()}
    held_out = CocoSource(settings.dataset / "valid", device, (480, 640), EVALUATION_SEED)
    if held_out.names != tuple(labels):
        raise DatasetError(f"{settings.dataset}: train has classes {list(labels)}, valid has {list(held_out.names)}")
    return evaluate(detector, held_out, min(settings.evaluation_scenes, len(held_out)), names)


class _Running:
    """Means of device scalars, read back only when asked for."""

    def __init__(self, batch: int) -> None:
        self._batch = batch
        self._sums: dict[str, Tensor] = {}
        self._count, self._since = 0, time.monotonic()

    def add(self, values: dict[str, Tensor]) -> None:
        for key, value in values.items():
            self._sums[key] = self._sums.get(key, torch.zeros_like(value)) + value
        self._count += 1

    def means(self) -> dict[str, float]:
        """Means since the last call, with images per second."""
        line = {k: float(v) / self._count for k, v in self._sums.items()}
        line["images_per_s"] = self._batch * self._count / (time.monotonic() - self._since)
        self._sums, self._count, self._since = {}, 0, time.monotonic()
        return line


def _fill(pool: ScenePool, count: int, device: torch.device) -> float:
    """Render into the pool; returns the seconds it took."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    begin = time.monotonic()
    while count > 0:
        pool.fill(min(count, 64))
        count -= 64
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.monotonic() - begin


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


def _little_noise(tensor: Tensor) -> Tensor:
    """What sets copies of a query group apart: equal groups would learn the same for ever."""
    return torch.randn_like(tensor) * (0.05 * tensor.std() if tensor.numel() > 1 else 0.0)


def _group(name: str) -> str:
    """The number of the query group that a parameter of the two-stage heads belongs to, or ""."""
    parts = name.split(".")
    return parts[2] if len(parts) > 3 and parts[1].startswith("enc_out") else ""


@torch.no_grad()
def _average(average: nn.Module, network: nn.Module, decay: float) -> None:
    torch._foreach_lerp_(list(average.parameters()), list(network.parameters()), 1 - decay)

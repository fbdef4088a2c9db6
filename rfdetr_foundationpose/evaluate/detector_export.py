"""Whether an exported detector finds what the one in torch finds, in rendered scenes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import torch

from ..config import DetectorConfig
from ..detect.backends import Network
from ..detect.checkpoint import LoadedModel
from ..detect.onnx_detector import image_spec, run_file
from ..detect.predictor import Predictor
from ..detect.rfdetr_detector import RfDetrDetector
from ..objects import load_objects
from ..pose.mesh import load_object
from ..resources import default_objects_file
from ..synth.scene import SceneSampler
from ..train.detector_eval import scenes
from .detector_validate import IMAGE_SIZE, Comparison, compare

CPU = torch.device("cpu")


@dataclass(frozen=True)
class DetectorCheck:
    """reasons: why the file is refused; none for a good one."""

    comparison: Comparison

    @property
    def reasons(self) -> tuple[str, ...]:
        return tuple(self.comparison.failures)

    def __str__(self) -> str:
        c = self.comparison
        return f"{c.detections} detections, {100 * c.agreement:.0f} % the same, boxes p95 {c.box_p95:.2f} px"


def check_detector(loaded: LoadedModel, files: Sequence[Path], images: int) -> list[DetectorCheck | str]:
    """Each file in onnxruntime against the model in FP32, on scenes of the objects that it knows; or why it was not checked."""
    specs = [s for s in load_objects(default_objects_file()) if s.label in set(loaded.class_names.values())]
    if not images or not specs:
        why = "not asked for" if specs else "the shipped objects are none of its classes"
        return [why] * len(files)
    if find_spec("onnxruntime") is None:
        return ["onnxruntime is not installed: pip install onnxruntime"] * len(files)
    reference = RfDetrDetector(loaded, specs, DetectorConfig(backend="eager", mask="box"), CPU)
    candidates = [_predictor(loaded, reference, file) for file in files]
    sampler = SceneSampler([load_object(s) for s in specs], CPU, IMAGE_SIZE, seed=0)
    expected, found = [], [[] for _ in files]  # type: ignore[var-annotated]
    for frame, _ in scenes(sampler, images, chunk=2):
        expected.append(reference.raw(frame))
        depth = torch.zeros(IMAGE_SIZE)
        for results, predictor in zip(found, candidates, strict=True):
            results.append(predictor(torch.from_numpy(frame.rgb), depth))
    words = {"reference": "FP32 eager", "device": "cpu", "weights": loaded.description}
    return [
        DetectorCheck(compare(list(zip(expected, results, strict=True)), 0.5, candidate=file.name, **words))
        for file, results in zip(files, found, strict=True)
    ]


def _predictor(loaded: LoadedModel, like: RfDetrDetector, file: Path) -> Predictor:
    model = loaded.model
    network = Network(run_file(file, image_spec(model), CPU), torch.float32, "onnxruntime", graph=False)
    return Predictor(
        network,
        size=model.model.resolution,
        means=model.means,
        stds=model.stds,
        classes=list(like.class_objects),
        select=model.model_config.num_select,
        device=CPU,
    )

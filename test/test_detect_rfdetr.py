"""The RF-DETR wrapper: our predictor against predict(), backends, the optimization shim across versions."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
import torch

from rfdetr_foundationpose.config import Config, DetectorConfig
from rfdetr_foundationpose.detect import DetectorError, build_detector
from rfdetr_foundationpose.detect import rfdetr_library as library
from rfdetr_foundationpose.detect.backends import explain
from rfdetr_foundationpose.detect.checkpoint import save
from rfdetr_foundationpose.detect.predictor import Sampler
from rfdetr_foundationpose.detect.rfdetr_detector import RfDetrDetector
from rfdetr_foundationpose.device_frame import Uploader
from rfdetr_foundationpose.objects import ObjectSpec
from support.detector_models import CPU, NAMES, SEG_TINY, SPECS, TINY, assert_same, detector, frame, loaded


def test_sampler_is_torch_bilinear_with_normalization():
    rgb = torch.from_numpy(frame().rgb)
    means, stds = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]
    ours = Sampler(270, 480, 128, means, stds, CPU)(rgb, torch.float32)
    image = rgb.permute(2, 0, 1)[None].float() / 255
    theirs = torch.nn.functional.interpolate(image, (128, 128), mode="bilinear", align_corners=False)
    theirs = (theirs - torch.tensor(means).view(3, 1, 1)) / torch.tensor(stds).view(3, 1, 1)
    torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=0)


@pytest.mark.parametrize("backend", ["eager", "traced"])
def test_hot_path_gives_what_predict_gives(backend):
    reference, fast = detector("reference"), detector(backend)
    assert (reference.backend, fast.backend) == ("reference", backend)
    for seed in range(3):
        expected = reference.raw(frame(seed))
        assert expected.boxes.std() > 5 and expected.scores.std() > 0.01
        assert_same(fast.raw(frame(seed)), expected)
        assert_same(expected, fast.raw(frame(seed)))


def test_segmentation_masks_are_those_of_predict():
    reference, fast = detector("reference", "seg-nano", SEG_TINY), detector("eager", "seg-nano", SEG_TINY)
    reference.apply(DetectorConfig(threshold=0.0))
    fast.apply(DetectorConfig(threshold=0.0))
    on_device = Uploader("cpu")(frame())
    expected, got = reference.detect(on_device).detections, fast.detect(on_device).detections
    assert len(expected) >= 10
    checked = 0
    for e in expected:
        twins = [
            g for g in got if g.object == e.object and abs(g.score - e.score) < 1e-3 and abs(g.box - e.box).max() < 1
        ]
        for g in twins:
            assert g.mask.shape == (270, 480) and g.mask.dtype == torch.bool
            checked += float((g.mask != e.mask).float().mean()) < 0.01
    assert checked >= 5


def test_thresholds_labels_and_what_missed_them():
    settings = DetectorConfig(threshold=0.9)
    d = RfDetrDetector(loaded(), SPECS, settings, CPU)
    raw = d.raw(frame())
    middle = float(np.median(raw.scores))
    d.apply(DetectorConfig(threshold=middle))
    report = d.detect(Uploader("cpu")(frame()))
    assert {x.object for x in report.detections} <= {"mug", "tin"}
    assert all(x.label == {"mug": "mug", "tin": "can"}[x.object] for x in report.detections)
    assert all(x.score >= middle for x in report.detections)
    assert [x.score for x in report.detections] == sorted((x.score for x in report.detections), reverse=True)
    d.apply(DetectorConfig(threshold=1.0))
    report = d.detect(Uploader("cpu")(frame()))
    assert report.detections == []
    assert report.thresholds == {"mug": 1.0, "tin": 1.0}
    np.testing.assert_allclose(sorted(report.best_below.values()), sorted(raw.best), atol=1e-6)


def test_own_threshold_of_an_object_wins():
    strict = [ObjectSpec("mug", mesh=__file__, threshold=1.0), SPECS[1]]
    d = RfDetrDetector(loaded(), strict, DetectorConfig(threshold=0.0), CPU)
    report = d.detect(Uploader("cpu")(frame()))
    assert {x.object for x in report.detections} == {"tin"}
    assert set(report.best_below) == {"mug"}


def test_backends_that_cannot_run_here_fall_back_and_say_so(said):
    pytest.importorskip("onnxruntime")
    wanted = {"half": "eager", "cuda_graph": "onnxruntime", "tensorrt": "onnxruntime", "auto": "eager"}
    for asked, runs in wanted.items():
        d = RfDetrDetector(loaded(), SPECS, DetectorConfig(backend=asked), CPU)
        assert d.backend == runs
        # What is said at the start is what diagnostics show later; "auto" is never degraded.
        assert [f"{reason}; running {runs} instead" for reason in d.degraded] == ([] if asked == "auto" else said[-1:])
    assert said == [
        "detector: backend half needs a CUDA device, this is cpu; running eager instead",
        "detector: backend cuda_graph needs a CUDA device, this is cpu; running onnxruntime instead",
        "detector: backend tensorrt needs a CUDA device, this is cpu; running onnxruntime instead",
    ]


@pytest.mark.slow
def test_compiled_network_gives_what_predict_gives():
    small = {**TINY, "out_feature_indexes": [1], "dec_layers": 1}
    reference, fast = detector("reference", config=small), detector("compile", config=small)
    assert fast.backend == "compile" and fast.degraded == []
    for seed in range(2):
        assert_same(fast.raw(frame(seed)), reference.raw(frame(seed)))


def test_compiler_that_fails_gives_way_with_its_reason(monkeypatch, said):
    def broken(module, **options):
        def run(*inputs):
            raise RuntimeError(
                "backend='inductor' raised:\nInvalidCxxCompiler: No working C++ compiler found: (None, 'g++')\n\n"
                "Set TORCHDYNAMO_VERBOSE=1 for the internal stack trace"
            )

        return run

    monkeypatch.setattr(torch, "compile", broken)
    d = RfDetrDetector(loaded(), SPECS, DetectorConfig(backend="compile"), CPU)
    assert d.backend == "traced" and len(d.raw(frame()).scores)
    reason = "backend='inductor' raised: InvalidCxxCompiler: No working C++ compiler found: (None, 'g++')"
    assert said == [f"detector: backend compile {reason}; running traced instead"]
    assert d.degraded == [f"detector: backend compile {reason}"]


def test_reason_of_an_error_is_one_short_line():
    assert explain(ValueError("plain\nmore")) == "plain more"
    assert explain(ValueError("what\n\nadvice")) == "what"
    assert explain(ValueError()) == "ValueError"
    assert explain(ValueError("a:\n\nb:\n\nc\n\nd")) == "a: b: c"
    assert len(explain(ValueError("x" * 5000))) == 400


def test_what_follows_the_encoder_stays_float32_and_is_not_rounded():
    made = loaded()
    before = {k: v.clone() for k, v in library.network(made.model).state_dict().items()}
    d = RfDetrDetector(made, SPECS, DetectorConfig(backend="half"), CPU, half_on_cpu=True)
    assert d.backend == "half" and d.dtype == torch.float16
    fast = made.model.model.inference_model
    for name, tensor in fast.state_dict().items():
        encoder = name.startswith("backbone.0.encoder.")
        assert tensor.dtype == (torch.float16 if encoder else torch.float32) or not tensor.is_floating_point(), name
        assert encoder or torch.equal(tensor, before[name]), name
    with torch.inference_mode():
        boxes, logits = fast(torch.zeros(1, 3, 128, 128, dtype=torch.float16))
    assert boxes.dtype == logits.dtype == torch.float32
    assert library.network(made.model).transformer.enc_output[0].weight.dtype == torch.float32


@pytest.mark.parametrize("variant, config", [("nano", TINY), ("seg-nano", SEG_TINY)])
def test_half_precision_is_near_predict(variant, config):
    made = loaded(variant, **config)
    settings = DetectorConfig(backend="half", threshold=0.5)
    fast = RfDetrDetector(made, SPECS, settings, CPU, half_on_cpu=True)
    reference = detector("reference", variant, config)
    near = total = 0
    for seed in range(3):
        a, b = reference.raw(frame(seed)), fast.raw(frame(seed))
        assert (a.mask_logits is None) == (b.mask_logits is None) == (variant == "nano")
        for box, score, index in zip(a.boxes[:8], a.scores[:8], a.classes[:8], strict=True):
            if int(index) not in fast.class_objects:
                continue
            gap = np.abs(b.boxes - box).max(1) + 1e3 * (b.classes != index)
            near += bool(gap.min() < 2 and abs(b.scores[gap.argmin()] - score) < 0.02)
            total += 1
    assert total >= 15 and near >= 0.8 * total


class OldModel:
    """Has the name that rfdetr used up to 1.8."""

    def __init__(self) -> None:
        self.calls: list[dict] = []

    def optimize_for_inference(self, compile: bool = True, batch_size: int = 1, dtype=torch.float32) -> None:
        self.calls.append({"compile": compile, "batch_size": batch_size, "dtype": dtype})


def test_shim_takes_the_old_name_where_the_new_one_is_missing():
    old = OldModel()
    library.optimize(old, compile=True, dtype=torch.float16)
    assert old.calls == [{"compile": True, "batch_size": 1, "dtype": torch.float16}]
    with pytest.raises(DetectorError, match="neither"):
        library.optimize(object(), compile=False, dtype=torch.float32)


def test_shim_optimizes_a_model_of_the_installed_version():
    model = loaded().model
    library.optimize(model, compile=True, dtype=torch.float32)
    assert isinstance(model.model.inference_model, torch.jit.ScriptModule)


def test_importing_rfdetr_leaves_the_process_its_precision():
    code = (
        "import torch\n"
        "from rfdetr_foundationpose.detect import rfdetr_library\n"
        "rfdetr_library.load_library()\n"
        "print(torch.get_float32_matmul_precision())"
    )
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split()[-1] == "highest"


def test_truncated_encoder_gives_the_same_output():
    torch.manual_seed(0)
    net = library.network(library.construct("nano", CPU, num_classes=3, **TINY)).eval()
    image = torch.randn(1, 3, 128, 128)
    with torch.inference_mode():
        full = net(image)["pred_logits"]
        assert library.truncate_encoder(net) == 2
        assert torch.equal(net(image)["pred_logits"], full)


def test_unknown_variant_names_the_known_ones():
    with pytest.raises(DetectorError, match="nano, small, medium"):
        library.variant_class("tiny")


@pytest.mark.parametrize("name", sorted(library.VARIANTS))
def test_every_variant_exists_and_has_published_weights(name):
    path, address = library.published_file(name)
    assert path.suffix in (".pth", ".pt") and address.startswith("https://")


def test_build_detector_loads_a_saved_checkpoint(tmp_path):
    from rfdetr_foundationpose.detect.checkpoint import load_file

    made = loaded()
    path = tmp_path / "mine.safetensors"
    save(path, library.network(made.model), variant="nano", config=TINY, class_names=NAMES)
    config = Config()
    config.detector = DetectorConfig(weights=str(path))
    d = build_detector(config, SPECS, CPU)
    assert d.source == "rf-detr" and "mug, can, drill" in d.weights
    assert list(load_file(path, "nano", CPU).class_names.values()) == NAMES


@pytest.mark.parametrize("variant, config", [("nano", TINY), ("seg-nano", SEG_TINY)])
def test_onnxruntime_finds_what_torch_finds(variant, config, monkeypatch, tmp_path):
    pytest.importorskip("onnxruntime")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    reference, found = detector("eager", variant, config), detector("onnxruntime", variant, config)
    assert found.backend == "onnxruntime" and found.degraded == []
    for seed in range(2):
        assert_same(found.raw(frame(seed)), reference.raw(frame(seed)))
    (written,) = (tmp_path / "rfdetr_foundationpose" / "onnx").glob("detector-*-fp32.onnx")
    stamp = written.stat().st_mtime_ns
    detector("onnxruntime", variant, config)
    assert written.stat().st_mtime_ns == stamp, "exported once"

"""Every setting, once: type, default, unit, range. ROS parameters, YAML files and CLI flags are generated from it.

Setting paths are dotted (``detector.threshold``); they are the ROS parameter names.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .backends import DETECTOR, POSE, TENSORRT_LIBRARIES
from .errors import ConfigError
from .settings import Setting, setting
from .yaml_files import read_yaml, shown, suggestion

FIRST = "first"
"""A pruning schedule that begins with this word has a first pass."""


@dataclass
class InputConfig:
    image_transport: str = setting("raw", "image transport of both streams", choices=("raw", "compressed"))
    sync: str = setting("exact", "stamp matching of rgb and depth", choices=("exact", "approximate"))
    sync_slop: float = setting(
        0.02, "largest stamp difference of an approximate match", unit="s", minimum=0.0, maximum=1.0
    )
    sync_library: str = setting(
        "own",
        "what pairs rgb and depth: our own code, or message_filters; auto takes message_filters where it is installed",
        choices=("auto", "message_filters", "own"),
    )
    reliability: str = setting(
        "auto",
        "QoS reliability of the image streams; auto is reliable where all their publishers are",
        choices=("auto", "best_effort", "reliable"),
    )
    buffer_backends: str = setting(
        "auto",
        "memory that images may come in (ROS 2 Lyrical and newer): auto and cuda leave those that are on the GPU there",
        choices=("auto", "cpu", "cuda"),
    )
    depth_unit: float = setting(0.001, "metres per unit of 16UC1 depth", unit="m", minimum=1e-6, maximum=1.0)
    rectify: bool = setting(
        False,
        "undistort colour and depth by camera_info's distortion; for drivers without a rectified topic, costs a few ms a frame",
    )
    max_age: float = setting(
        0.5, "older frames are dropped and counted; 0 accepts any age", unit="s", minimum=0.0, maximum=3600.0, live=True
    )
    use_mask_topics: bool = setting(
        False,
        "subscribe to mask/<instance> (mono8), for recordings with ground-truth masks; detector.source=mask-topic does so by itself",
    )


@dataclass
class DetectorConfig:
    source: str = setting(
        "rf-detr",
        "where detections come from; with none, objects are tracked from a box on ~/init_box/<object>",
        choices=("rf-detr", "mask-topic", "none"),
    )
    variant: str = setting(
        "nano",
        "RF-DETR variant when weights name no checkpoint of their own: nano, small, medium, large, seg-nano, ...",
    )
    weights: str = setting("default", "'default' (shipped), 'published' (downloads COCO weights), or a checkpoint path")
    first_class_id: str = setting(
        "auto",
        "network class of a checkpoint's first class name; auto follows the rfdetr that wrote it, whose files do not always tell",
        choices=("auto", "0", "1"),
    )
    backend: str = setting("auto", "how the network is run", choices=DETECTOR.choices)
    threshold: float = setting(0.5, "lowest score of a detection", minimum=0.0, maximum=1.0, live=True)
    mask: str = setting("auto", "mask given to registration", choices=("auto", "instance", "box", "box-depth"))
    period_frames: int = setting(
        15,
        "run every n-th frame while everything is tracked; 1 is every frame, 0 leaves it to period_seconds",
        minimum=0,
        maximum=10000,
        live=True,
    )
    period_seconds: float = setting(
        0.0,
        "run so long after the last run, by the frames' stamps, while everything is tracked; 0 is off; with period_frames "
        "too, whichever comes first",
        unit="s",
        minimum=0.0,
        maximum=3600.0,
        live=True,
    )
    association_iou: float = setting(
        0.3,
        "lowest box overlap of a detection with a tracked object to be the same instance",
        minimum=0.0,
        maximum=1.0,
        live=True,
    )


@dataclass
class PoseConfig:
    weights: str = setting(
        "default",
        "'default' (shipped), 'base' (shipped: official size, still in training), or a directory that holds the official "
        "checkpoints or our safetensors",
    )
    backend: str = setting("auto", "how refiner and scorer are run", choices=POSE.choices)
    engines: str = setting(
        "", "folder of TensorRT engines that build-engines wrote, for pose and detector; empty: built on this machine"
    )
    renderer: str = setting("warp", "what renders the model", choices=("warp", "nvdiffrast"))
    crop_sampling: str = setting(
        "auto",
        "how observed crops are sampled: official, through up to three warps; direct, as ours learned; auto: by the weights",
        choices=("auto", "official", "direct"),
    )
    register_iterations: int = setting(5, "refiner iterations of registration", minimum=1, maximum=20, live=True)
    register_schedule: str = setting(
        "auto",
        "hypotheses kept before each iteration, e.g. '252,64,16,8,8', or 'first,64,16,8,8' where a network of small crops moves "
        "all of them once before; 'full' keeps all in full size; 'auto' prunes after a first pass",
    )
    register_confidence: float = setting(
        2.0,
        "what the log-odds of the confidence weigh beside the score in the last choice; 0 leaves it to the scorer",
        minimum=0.0,
        maximum=100.0,
    )
    register_outline: str = setting(
        "auto",
        "rank hypotheses by a mask's outline, look at the object alone if unsure; auto: not with official weights",
        choices=("auto", "always", "never"),
    )
    align: str = setting(
        "auto",
        "after the networks, align each pose with the depth and the texture of the image; auto: on a CPU, not with official weights",
        choices=("auto", "always", "never"),
    )
    track_iterations: int = setting(2, "refiner iterations of tracking", minimum=1, maximum=10)
    min_depth: float = setting(0.1, "nearer depth is ignored", unit="m", minimum=0.0, maximum=10.0)
    max_depth: float = setting(4.0, "farther depth is ignored", unit="m", minimum=0.1, maximum=100.0)
    accept_confidence: float = setting(
        0.15, "a registration below this is refused and searched again", minimum=0.0, maximum=1.0, live=True
    )
    lost_confidence: float = setting(
        0.1, "a tracked pose below this for lost_frames frames is uncertain", minimum=0.0, maximum=1.0, live=True
    )
    lost_frames: int = setting(
        3,
        "consecutive frames below lost_confidence before an object is uncertain: held back, and searched near where it was",
        minimum=1,
        maximum=1000,
        live=True,
    )
    lost_seconds: float = setting(
        0.5,
        "an uncertain object that is not found again within this time is lost; 0 loses it at once",
        unit="s",
        minimum=0.0,
        maximum=60.0,
        live=True,
    )


@dataclass
class OutputConfig:
    tf: bool = setting(True, "broadcast camera optical frame -> object", live=True)
    tf_prefix: str = setting("", "prefix of object frames in tf")
    detections: bool = setting(True, "publish ~/detections (vision_msgs)", live=True)
    markers: bool = setting(True, "publish ~/markers", live=True)
    marker_mesh: str = setting(
        "auto",
        "how ~/markers shows the mesh: its file, or triangles, which another machine can draw too; auto takes the file where "
        "its name is the same on every machine (package://) and every viewer draws it alike (not glTF, whose y some turn up)",
        choices=("auto", "file", "triangles"),
    )
    smoothing: float = setting(
        0.0,
        "poses are smoothed and lag by this time behind what moves at constant velocity; 0 gives them as measured",
        unit="s",
        minimum=0.0,
        maximum=1.0,
        live=True,
    )
    covariance: bool = setting(
        False, "fill covariances (~/detections, ~/pose_with_covariance/<object>) from the confidence", live=True
    )


@dataclass
class DebugConfig:
    image: bool = setting(True, "draw ~/debug_image when somebody subscribes", live=True)
    image_rate: float = setting(
        10.0, "highest rate of the debug image", unit="Hz", minimum=0.1, maximum=120.0, live=True
    )
    latency_rate: float = setting(
        10.0, "rate of the ~/latency topics", unit="Hz", minimum=0.1, maximum=120.0, live=True
    )
    diagnostics_rate: float = setting(1.0, "rate of /diagnostics", unit="Hz", minimum=0.1, maximum=10.0, live=True)
    min_input_rate: float = setting(
        10.0, "a slower camera is a diagnostics warning", unit="Hz", minimum=0.0, maximum=1000.0, live=True
    )


@dataclass
class Config:
    """All settings. From Python: ``Config()`` for the defaults, then ``config.detector.threshold = 0.4``, or at once
    ``Config.from_dict({"detector.threshold": 0.4})``, or ``Config.load("settings.yaml")``."""

    device: str = setting("auto", "compute device: auto, cpu, cuda, cuda:0, ...")
    tensorrt_library: str = setting(
        "auto",
        "what runs the backend tensorrt; auto: tensorrt where it is installed, else tensorrt_rtx",
        choices=("auto", *TENSORRT_LIBRARIES),
    )
    objects_file: str = setting("", "objects.yaml: which class label is which mesh; empty takes the demo's objects")
    autostart: bool = setting(True, "configure and activate the lifecycle node by itself")
    input: InputConfig = field(default_factory=InputConfig)
    detector: DetectorConfig = field(default_factory=DetectorConfig)
    pose: PoseConfig = field(default_factory=PoseConfig)
    output: OutputConfig = field(default_factory=OutputConfig)
    debug: DebugConfig = field(default_factory=DebugConfig)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Config:
        """The defaults with other values, by dotted name. Raises ConfigError on unknown names and bad values."""
        return from_flat(values)

    @classmethod
    def load(cls, path: str | Path) -> Config:
        """From a YAML tree, or from a ROS parameter file. Raises ConfigError."""
        return load_yaml(path)


def iter_settings(node: Any = None, prefix: str = "") -> Iterator[Setting]:
    """All settings of the tree, depth first, with their defaults (or the values of the given tree)."""
    node = Config() if node is None else node
    for f in dataclasses.fields(node):
        value = getattr(node, f.name)
        if dataclasses.is_dataclass(value):
            yield from iter_settings(value, f"{prefix}{f.name}.")
        else:
            yield Setting(path=prefix + f.name, type=type(value), default=value, **f.metadata)


def to_flat(config: Config) -> dict[str, Any]:
    """Dotted path -> value."""
    return {s.path: s.default for s in iter_settings(config)}


def from_flat(values: Mapping[str, Any], base: Config | None = None) -> Config:
    """A new Config with the dotted values applied to ``base``. Raises ConfigError on unknown names and bad values."""
    settings = {s.path: s for s in iter_settings()}
    config = dataclasses.replace(base or Config())
    for f in dataclasses.fields(config):
        if dataclasses.is_dataclass(getattr(config, f.name)):
            setattr(config, f.name, dataclasses.replace(getattr(config, f.name)))
    for path, value in values.items():
        if path not in settings:
            close = [p for p in settings if p.rsplit(".", 1)[-1] == path.rsplit(".", 1)[-1]]
            meant = f"; did you mean {close[0]!r}?" if close else suggestion(path, settings)
            raise ConfigError(f"unknown setting {shown(path)}{meant}")
        *parents, leaf = path.split(".")
        target: Any = config
        for parent in parents:
            target = getattr(target, parent)
        setattr(target, leaf, settings[path].check(value))
    check_consistency(config)
    return config


def check_consistency(config: Config) -> None:
    """Raises ConfigError for values that contradict one another."""
    if config.pose.min_depth >= config.pose.max_depth:
        raise ConfigError(
            f"pose.min_depth={config.pose.min_depth} must be below pose.max_depth={config.pose.max_depth}"
        )
    schedule_counts(config.pose.register_schedule)
    if config.pose.lost_confidence > config.pose.accept_confidence:
        raise ConfigError(
            f"pose.lost_confidence={config.pose.lost_confidence} must not exceed pose.accept_confidence={config.pose.accept_confidence}"
        )


def schedule_counts(text: str) -> tuple[int, ...]:
    """Counts of pose.register_schedule, those after a first pass; empty for "auto" and "full". Raises ConfigError."""
    if text in ("auto", "full"):
        return ()
    try:
        counts = tuple(int(part) for part in text.removeprefix(FIRST + ",").split(","))
    except ValueError as error:
        raise ConfigError(
            f"pose.register_schedule={text!r} must be 'auto', 'full' or counts like '252,64,16,8,8' or 'first,64,16,8,8'"
        ) from error
    if any(c < 1 for c in counts) or list(counts) != sorted(counts, reverse=True):
        raise ConfigError(f"pose.register_schedule={text!r} must hold counts of at least 1 that never grow")
    return counts


def load_yaml(path: str | Path, base: Config | None = None) -> Config:
    """Config from a YAML tree, or from a ROS parameter file (``<node>: ros__parameters:``).

    Raises ConfigError that names file and key, for a syntax error file and line.
    """
    path = Path(path).expanduser()
    tree = read_yaml(path)
    try:
        return from_flat(_flatten(_parameters({} if tree is None else tree)), base)
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from error


def _parameters(tree: Any) -> Mapping[Any, Any]:
    """The settings in a tree: itself, or what a ROS parameter file gives all nodes (``/**``) and then its one node."""
    if not isinstance(tree, Mapping):
        raise ConfigError(f"must hold settings like 'detector: {{threshold: 0.5}}', found {shown(tree)}")
    nodes = {name: node for name, node in tree.items() if isinstance(node, Mapping) and "ros__parameters" in node}
    if not nodes:
        return tree
    named = [name for name in nodes if name != "/**"]
    if len(named) > 1 or len(nodes) < len(tree):
        listed = ", ".join(shown(name) for name in tree)
        raise ConfigError(f"must hold the parameters of one node (and of '/**'), found {listed}")
    merged: dict[Any, Any] = {}
    for name in (n for n in ("/**", *named) if n in nodes):
        parameters = nodes[name]["ros__parameters"]
        if not isinstance(parameters, Mapping | None):
            raise ConfigError(f"{name}: ros__parameters must hold settings, found {shown(parameters)}")
        merged |= _flatten(parameters or {})
    return merged


DEEPEST = 8
"""A settings tree, and what an alias in it may make of itself, has at most so many levels."""


def _flatten(tree: Mapping[Any, Any], prefix: str = "", depth: int = 0) -> dict[str, Any]:
    """Dotted path -> value. A group that is left empty holds nothing."""
    if depth > DEEPEST:
        raise ConfigError(f"{shown(prefix)} is nested too deeply for settings")
    groups = {s.path.rpartition(".")[0] for s in iter_settings()}
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        path = f"{prefix}{key}"
        if isinstance(value, Mapping):
            flat.update(_flatten(value, f"{path}.", depth + 1))
        elif path in groups:
            if value is not None:
                raise ConfigError(f"{path}={shown(value)} must be a group of settings, one a line below it")
        else:
            flat[path] = value
    return flat

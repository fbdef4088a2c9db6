"""``evaluate ycbv``: register known objects in real YCB-Video frames."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
import typer

from .console import CONTACT_SHEET, open_console
from .evaluate_poses import build_tools, print_attempts, run
from .options import Device, JsonFile, Out, PoseWeights, Seed, Settings
from .outputs import Overwrite, claim

if TYPE_CHECKING:
    from ..evaluate.attempts import Attempt
    from ..evaluate.ycbv import RealFrame
    from ..objects import ObjectSpec


def ycbv(
    data: Annotated[
        Path, typer.Option(help="Folder of <frame>-color.png, -depth.png and -gt.json, and meshes/<object>.glb.")
    ],
    seed: Seed = 0,
    device: Device = "auto",
    weights: PoseWeights = "default",
    setting: Settings = None,
    out: Out = Path("out/ycbv"),
    json_file: JsonFile = None,
    overwrite: Overwrite = False,
) -> None:
    """Real YCB-Video frames: register every object that has a mesh from a mask as faulty as a detector's."""
    from ..evaluate.pose_attempts import ycbv_attempts
    from ..evaluate.ycbv import find_instances, load_frames, load_specs

    console = open_console()
    frames = load_frames(data)
    specs = load_specs(data, frames)
    names = ["result.json", CONTACT_SHEET, *(f"{f.name}.png" for f in frames)]
    outputs = claim("evaluate ycbv", out, names, json_file, overwrite=overwrite)
    instances = find_instances(frames, specs)
    tools = build_tools(specs, device, weights, setting)
    masks: list[Any] = []

    def attempts() -> Iterator[list[Attempt]]:
        for attempt, mask in ycbv_attempts(tools, frames, instances, seed):
            masks.append(mask)
            yield [attempt]

    about = {
        "data": data.name,
        "frames": len(frames),
        "instances": [{"scene": i.scene, "object": i.object, "visibility": i.visibility} for i in instances],
    }
    made = run(console, outputs, tools, about, attempts(), len(instances), "instances")
    print_attempts(console, made)
    _draw(out, frames, made, masks, specs)


def _draw(
    out: Path,
    frames: Sequence[RealFrame],
    attempts: Sequence[Attempt],
    masks: Sequence[Any],
    specs: Sequence[ObjectSpec],
) -> None:
    """A picture of each frame, the masks given tinted, and a contact sheet of them."""
    from PIL import Image

    from ..overlay import OverlayModel, draw_overlay
    from ..replay.report import contact_sheet
    from ..types import ObjectPose, TrackState

    models = {spec.name: OverlayModel.load(spec) for spec in specs}
    pictures, captions = [], []
    for real in frames:
        tinted, poses, texts = real.frame.rgb.copy(), [], []
        for attempt, mask in zip(attempts, masks, strict=True):
            if attempt.scene != real.name:
                continue
            tinted[mask] = (tinted[mask] * 0.7 + np.array([76, 0, 76])).astype(np.uint8)
            if attempt.T_cam_obj is not None:
                confidence = attempt.confidence if attempt.confidence is not None else float("nan")
                visibility = attempt.visibility if attempt.visibility is not None else float("nan")
                T, state = attempt.T_cam_obj, TrackState.TRACKING
                poses.append(ObjectPose(attempt.object, 0, T, confidence, visibility, state, 0, "camera"))
            e = attempt.error
            found = attempt.refusal if e is None else f"{e.translation_mm:.1f} mm {e.rotation_deg:.1f} deg"
            texts.append(f"{attempt.object}: {found}")
        if not texts:
            continue
        picture = draw_overlay(tinted, real.frame.camera, poses, models, text=texts)
        Image.fromarray(picture).save(out / f"{real.name}.png")
        pictures.append(picture)
        captions.append(real.name)
    if pictures:
        contact_sheet(out / CONTACT_SHEET, pictures, captions, columns=3)

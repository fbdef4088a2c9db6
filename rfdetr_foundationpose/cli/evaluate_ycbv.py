"""``evaluate ycbv``: register the mustard bottle in real YCB-Video frames."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
import typer

from .console import CONTACT_SHEET, open_console
from .evaluate_poses import print_attempts, run, tools_of
from .options import Device, JsonFile, Out, PoseWeights, Seed, Settings
from .outputs import Overwrite, claim

if TYPE_CHECKING:
    from ..evaluate.attempts import Attempt
    from ..objects import ObjectSpec


def ycbv(
    data: Annotated[Path, typer.Option(help="Folder of <frame>-color.png, -depth.png, -gt.json and the mesh.")],
    seed: Seed = 0,
    device: Device = "auto",
    weights: PoseWeights = "default",
    setting: Settings = None,
    out: Out = Path("out/ycbv"),
    json_file: JsonFile = None,
    overwrite: Overwrite = False,
) -> None:
    """Real YCB-Video frames: register the mustard bottle from its projected silhouette, made faulty."""
    from ..evaluate.pose_attempts import ycbv_attempts
    from ..evaluate.ycbv import MUSTARD, load_frames, mustard

    console = open_console()
    frames = [f for f in load_frames(data) if MUSTARD in f.truths]
    spec = mustard(data)
    tools = tools_of([spec], device, weights, setting)
    names = ["result.json", CONTACT_SHEET, *(f"{f.name}.png" for f in frames)]
    outputs = claim("evaluate ycbv", out, names, json_file, overwrite=overwrite)
    masks: list[Any] = []

    def attempts() -> Iterator[list[Attempt]]:
        for attempt, mask in ycbv_attempts(tools, frames, spec, seed):
            masks.append(mask)
            yield [attempt]

    about = {"data": data.name, "frames": len(frames)}
    made = run(console, outputs, tools, about, attempts(), len(frames), "frames")
    print_attempts(console, made)
    _draw(out, [f.frame for f in frames], made, masks, spec)


def _draw(
    out: Path, frames: Sequence[Any], attempts: Sequence[Attempt], masks: Sequence[Any], spec: ObjectSpec
) -> None:
    """Overlay pictures, the mask given tinted, and a contact sheet of them."""
    from PIL import Image

    from ..overlay import OverlayModel, draw_overlay
    from ..replay.report import contact_sheet
    from ..types import ObjectPose, TrackState

    models = {spec.name: OverlayModel.load(spec)}
    pictures, captions = [], []
    for frame, attempt, mask in zip(frames, attempts, masks, strict=True):
        tinted = frame.rgb.copy()
        tinted[mask] = (tinted[mask] * 0.7 + np.array([76, 0, 76])).astype(np.uint8)
        poses = []
        if attempt.T_cam_obj is not None:
            confidence = attempt.confidence if attempt.confidence is not None else float("nan")
            visibility = attempt.visibility if attempt.visibility is not None else float("nan")
            poses = [
                ObjectPose(spec.name, 0, attempt.T_cam_obj, confidence, visibility, TrackState.TRACKING, 0, "camera")
            ]
        e = attempt.error
        caption = attempt.refusal if e is None else f"{e.translation_mm:.1f} mm {e.rotation_deg:.1f} deg"
        picture = draw_overlay(tinted, frame.camera, poses, models, text=[caption])
        Image.fromarray(picture).save(out / f"{attempt.scene}.png")
        pictures.append(picture)
        captions.append(f"{attempt.scene}: {caption}")
    if pictures:
        contact_sheet(out / CONTACT_SHEET, pictures, captions, columns=3)

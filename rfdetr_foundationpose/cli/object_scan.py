"""``object scan``: a mesh of an object from a recording of it on the printed board."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from .console import open_console, progress_bar
from .object_board import Sheet
from .options import Device


def scan(
    recording: Annotated[Path, typer.Argument(help="rosbag2 directory, .mcap, .db3 or ROS 1 .bag.")],
    name: Annotated[str, typer.Option(help="Name of the object: topic, TF frame and file.")],
    objects_file: Annotated[Path, typer.Option(help="objects.yaml to extend; made where there is none.")] = Path(
        "objects.yaml"
    ),
    sheet: Annotated[Sheet, typer.Option("--board", help="The sheet that 'object board' printed.")] = Sheet.A4,
    voxel: Annotated[
        float, typer.Option(min=0.0, max=20.0, help="Resolution of the mesh [mm]; 0: by the object's size.")
    ] = 0.0,
    symmetries: Annotated[
        bool, typer.Option("--symmetries/--no-symmetries", help="Look for symmetries of shape and print.")
    ] = True,
    rgb: Annotated[str | None, typer.Option(help="Colour topic; default: found by name and type.")] = None,
    depth: Annotated[str | None, typer.Option(help="Depth topic.")] = None,
    camera_info: Annotated[str | None, typer.Option(help="CameraInfo topic.")] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace mesh and entry of that name.")] = False,
    device: Device = "auto",
) -> None:
    """Make a coloured mesh in metres from a recording of an object on the board, and add it to objects.yaml."""
    import json

    from ..device import resolve_device
    from ..object_tools.board import BOARDS
    from ..object_tools.entry import entry_text, write_entry
    from ..object_tools.scan import ScanError
    from ..object_tools.scan import scan as run
    from ..object_tools.six_views import write_sides
    from ..object_tools.symmetry_search import FoundSymmetries, find_symmetries
    from ..objects import ObjectSpec
    from ..pose.mesh import load_object
    from ..process import prepare_process
    from ..replay.recording import Recording

    console = open_console()

    def say(text: str, style: str = "") -> None:
        console.print(text, markup=False, highlight=False, soft_wrap=True, style=style or None)

    folder = objects_file.parent
    mesh_file, picture = folder / "meshes" / f"{name}.ply", folder / f"{name}.sides.png"
    spec = ObjectSpec(name, mesh_file)  # refuses names that are no topic
    if mesh_file.exists() and not overwrite:
        raise ScanError(f"{mesh_file} exists; give another --name, or --overwrite")
    tape = Recording(recording, rgb=rgb, depth=depth, camera_info=camera_info)
    tape.check()
    place = str(prepare_process(resolve_device(device)))
    with progress_bar(console) as progress:
        task = progress.add_task("scan", total=len(tape))
        found = run(
            (frame for frame, _ in tape),
            BOARDS[sheet.value],
            voxel=voxel / 1e3,
            device=place,
            progress=lambda _, done: progress.update(task, completed=done),
        )
    mesh_file.parent.mkdir(parents=True, exist_ok=True)
    found.mesh.export(mesh_file)
    mesh_file.with_suffix(".json").write_text(json.dumps(found.as_dict(), indent=1) + "\n")
    model = load_object(spec)
    write_sides(picture, model, place)
    turns = find_symmetries(model) if symmetries else FoundSymmetries((), (), ())
    text = entry_text(name, mesh_file, objects_file, discrete=turns.discrete, continuous=turns.continuous)
    done = write_entry(objects_file, name, text, overwrite=overwrite)
    size = " x ".join(f"{1e3 * v:.0f}" for v in found.mesh.extents)
    say(f"{mesh_file}: {size} mm, {len(found.mesh.faces):,} triangles, from {found.used} of {found.frames} frames")
    say(
        f"  seen well {found.coverage:.0%} of the surface, guessed {found.holes:.1%}; depth off the mesh by "
        f"{1e3 * found.residual[0]:.1f} mm (median), {1e3 * found.residual[1]:.1f} mm (90th percentile)"
    )
    for remark in found.remarks:
        say(f"  advice  {remark}", "yellow")
    say(f"{done} in {objects_file}:")
    say("".join(f"    {line}\n" for line in text.splitlines()).rstrip())
    say(f"look at {picture}; the underside is flat, as nobody saw it")
    say(f"next: rfdetr-foundationpose train detector --objects-file {objects_file} --out out/{name}")

"""``object scan``: a mesh of an object from recordings, or a camera, that saw it on the printed board."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from .console import open_console, progress_bar
from .object_board import Sheet
from .options import Device


def scan(
    name: Annotated[str, typer.Option(help="Name of the object: topic, TF frame and file.")],
    recordings: Annotated[
        list[Path] | None,
        typer.Argument(
            help="rosbag2 directory, .mcap, .db3, ROS 1 .bag or folder of images; a second one of it turned over adds its underside."
        ),
    ] = None,
    camera: Annotated[
        bool, typer.Option("--camera", help="Record from a camera's topics now; default: those of a RealSense.")
    ] = False,
    turned_over: Annotated[
        bool, typer.Option("--turned-over", help="With --camera: a second pass after the object was turned over.")
    ] = False,
    seconds: Annotated[float, typer.Option(min=1, max=600, help="With --camera: length of a pass [s].")] = 30.0,
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
    camera_info: Annotated[
        str | None, typer.Option(help="CameraInfo topic, or a file of intrinsics (cam_K.txt, ...).")
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace mesh and entry of that name.")] = False,
    device: Device = "auto",
) -> None:
    """Make a textured mesh in metres of an object that was recorded on the board, and add it to objects.yaml."""
    import json

    from ..device import resolve_device
    from ..object_tools.board import BOARDS
    from ..object_tools.entry import entry_text, write_entry
    from ..object_tools.scan import ScanError
    from ..object_tools.scan import scan as run
    from ..object_tools.six_views import write_sides
    from ..object_tools.symmetry_search import FoundSymmetries, find_symmetries
    from ..object_tools.texture import atlas_library
    from ..objects import ObjectSpec
    from ..pose.mesh import load_object
    from ..process import prepare_process
    from ..replay.recording import Recording

    console = open_console()

    def say(text: str, style: str = "") -> None:
        console.print(text, markup=False, highlight=False, soft_wrap=True, style=style or None)

    folder = objects_file.parent
    mesh_file, picture = folder / "meshes" / f"{name}.glb", folder / f"{name}.sides.png"
    spec = ObjectSpec(name, mesh_file)  # refuses names that are no topic
    if mesh_file.exists() and not overwrite:
        raise ScanError(f"{mesh_file} exists; give another --name, or --overwrite")
    board = BOARDS[sheet.value]
    if camera == bool(recordings):
        raise typer.BadParameter("give recordings, or --camera for topics that are published now")
    if turned_over and not camera:
        raise typer.BadParameter("--turned-over is with --camera; give two recordings, the second of it turned over")
    atlas_library()  # before anybody walks round an object
    if camera:
        from .scan_camera import REALSENSE, record_passes

        given = {"rgb/image": rgb, "depth/image": depth, "rgb/camera_info": camera_info}
        topics = {k: v or REALSENSE[k] for k, v in given.items()}
        recordings = record_passes(topics, board, folder / "scans", name, 1 + turned_over, seconds, console)
        rgb = depth = camera_info = None
    tapes = [Recording(r, rgb=rgb, depth=depth, camera_info=camera_info) for r in recordings or ()]
    for tape in tapes:
        tape.check()
    place = str(prepare_process(resolve_device(device)))
    with progress_bar(console) as progress:
        surfaces = 1 if len(tapes) == 1 else len(tapes) + 1
        tasks = {
            "read": progress.add_task("read", total=sum(len(tape) for tape in tapes)),
            "fuse": progress.add_task("fuse", total=surfaces),
        }
        found = run(
            [(frame for frame, _ in tape) for tape in tapes],
            board,
            voxel=voxel / 1e3,
            device=place,
            timed=all(tape.timed for tape in tapes),
            progress=lambda phase, done: progress.update(tasks[phase], completed=done),
        )
    mesh_file.parent.mkdir(parents=True, exist_ok=True)
    found.textured.export(mesh_file)
    mesh_file.with_suffix(".json").write_text(json.dumps(found.as_dict(), indent=1) + "\n")
    model = load_object(spec)
    write_sides(picture, model, place)
    turns = find_symmetries(model) if symmetries else FoundSymmetries((), (), ())
    text = entry_text(name, mesh_file, objects_file, discrete=turns.discrete, continuous=turns.continuous)
    done = write_entry(objects_file, name, text, overwrite=overwrite)
    size = " x ".join(f"{1e3 * v:.0f}" for v in found.mesh.extents)
    say(f"{mesh_file}: {size} mm, {len(model.arrays.faces):,} triangles, from {found.used} of {found.frames} frames")
    say(
        f"  seen well {found.coverage:.0%} of the surface, guessed {found.holes:.1%}; depth off the mesh by "
        f"{1e3 * found.residual[0]:.1f} mm (median), {1e3 * found.residual[1]:.1f} mm (90th percentile)"
    )
    for remark in found.remarks:
        say(f"  advice  {remark}", "yellow")
    say(f"{done} in {objects_file}:")
    say("".join(f"    {line}\n" for line in text.splitlines()).rstrip())
    if found.seam is None:
        say(f"look at {picture}; the underside is flat, as nobody saw it: a second recording of it turned over adds it")
    else:
        say(
            f"look at {picture}; the passes have {found.seam.overlap:.0%} of the surface in common and are "
            f"{1e3 * found.seam.distance:.1f} mm apart there"
        )
    say(f"next: rfdetr-foundationpose train detector --objects-file {objects_file} --out out/{name}")

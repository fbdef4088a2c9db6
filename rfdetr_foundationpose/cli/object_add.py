"""``object add``: from a mesh file to an entry of objects.yaml."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated

import typer

from .console import open_console


def add(
    mesh: Annotated[Path, typer.Argument(help="OBJ, PLY, GLB, STL, USD, ...; in any unit.")],
    objects_file: Annotated[Path, typer.Option(help="objects.yaml to extend; made where there is none.")] = Path(
        "objects.yaml"
    ),
    name: Annotated[str, typer.Option(help="Topic and TF name; default: the file's name.")] = "",
    label: Annotated[str, typer.Option(help="The detector's class; default: the name.")] = "",
    scale: Annotated[
        float, typer.Option(min=0.0, help="Metres per mesh unit, e.g. 0.001; 0: suggested from the size.")
    ] = 0.0,
    symmetries: Annotated[
        bool, typer.Option("--symmetries/--no-symmetries", help="Look for symmetries of shape and print.")
    ] = True,
    picture: Annotated[
        Path | None, typer.Option(help="PNG of the six sides; default: beside the objects file.")
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an entry of that name.")] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Check and draw, but leave the objects file alone.")
    ] = False,
) -> None:
    """Check a mesh, suggest its scale and symmetries, draw it from six sides, and add it to objects.yaml."""
    from ..meshes.raw import MeshError
    from ..object_tools.entry import entry_text, write_entry
    from ..object_tools.mesh_check import check_mesh
    from ..object_tools.six_views import write_sides
    from ..object_tools.symmetry_search import FoundSymmetries, find_symmetries
    from ..objects import ObjectSpec
    from ..replay.bop_models import listed_model, object_spec

    console = open_console()

    def say(text: str, style: str = "") -> None:
        console.print(text, markup=False, highlight=False, soft_wrap=True, style=style or None)

    name = name or topic_name(mesh.stem)
    picture = picture or objects_file.parent / f"{name}.sides.png"
    ObjectSpec(name, mesh)  # refuses names that are no topic
    if not mesh.exists():
        raise MeshError(f"mesh {mesh} does not exist")
    listed = listed_model(mesh)
    report = check_mesh(mesh, name, scale or (None if listed is None else 0.001))
    if listed is not None and symmetries:
        spec = object_spec(listed, report.advice)
        found = FoundSymmetries(spec.discrete, spec.continuous, ())
        report.good.append(f"unit and symmetries as {mesh.parent / 'models_info.json'} has them")
    else:
        found = find_symmetries(report.model) if symmetries else FoundSymmetries((), (), ())
    write_sides(picture, report.model)
    text = entry_text(
        name,
        mesh,
        objects_file,
        label=label,
        scale=report.scale,
        discrete=found.discrete,
        continuous=found.continuous,
    )
    done = "" if dry_run else write_entry(objects_file, name, text, overwrite=overwrite)
    for line in report.good:
        say(f"  ok      {line}")
    for line in report.advice:
        say(f"  advice  {line}", "yellow")
    for line in found.shape_only:
        say(f"  ok      {line}: the print tells the sides apart, so they are not declared")
    if listed is None and (found.discrete or found.continuous):
        say(
            "  check   looks the same after the turns below; remove them if a detail that was not found tells the sides apart"
        )
    say(f"{f'{done} in {objects_file}' if done else 'the entry'}:")
    say("".join(f"    {line}\n" for line in text.splitlines()).rstrip())
    say(f"look at {picture}: right size, right colours, not inside out?")
    if done:
        say(f"next: rfdetr-foundationpose train detector --objects-file {objects_file} --out out/{name}")


def topic_name(stem: str) -> str:
    """A file's name as letters, digits and '_'."""
    name = re.sub(r"[^A-Za-z0-9]+", "_", stem).strip("_").lower()
    return name if name[:1].isalpha() else f"object_{name}".rstrip("_")

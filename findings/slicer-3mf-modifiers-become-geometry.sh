#!/usr/bin/env bash
# trimesh and lib3mf take a slicer's modifiers, support blockers and negative volumes for parts of the object.
#
# Versions: trimesh 5.2.0, lib3mf 2.5.0, numpy 2.4, Python 3.11.
# Behaviour: PrusaSlicer and SuperSlicer save a project as 3MF with all volumes of an object in one mesh. Which triangles are printed
#   stands beside the format, in Metadata/Slic3r_PE_model.config (firstid, lastid, volume_type); Bambu Studio and OrcaSlicer say it
#   in Metadata/model_settings.config. The file is valid 3MF. Its readers give the mesh whole: a cube of 20 mm with a support blocker
#   of 60 mm around it is 60 mm large, and nothing is said. For whom sizes matter (poses, collisions, volumes), the object has another
#   shape. Expected by who opened it in the slicer: the cube.
# Output seen:
#   trimesh: 24 triangles, 60 mm
#   lib3mf: 24 triangles, 60 mm, warnings: 0
# Exits with 1 when that changes.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/python" -m pip install --quiet trimesh==5.2.0 lib3mf==2.5.0 'numpy>=2.4,<2.5' scipy networkx lxml

cat > "$work/look.py" <<'EOF'
import sys
import zipfile

import lib3mf
import trimesh

CORE = "http://schemas.microsoft.com/3dmanufacturing/core/2015/02"


def box(size, first):
    half = size / 2
    points = [(x, y, z) for z in (-half, half) for y in (-half, half) for x in (-half, half)]
    quads = [(0, 2, 3, 1), (4, 5, 7, 6), (0, 1, 5, 4), (2, 6, 7, 3), (0, 4, 6, 2), (1, 3, 7, 5)]
    return points, [tuple(first + i for i in t) for a, b, c, d in quads for t in ((a, b, c), (a, c, d))]


points, triangles = box(20, 0)
more = box(60, len(points))
vertices = "".join('<vertex x="%g" y="%g" z="%g"/>' % p for p in points + more[0])
faces = "".join('<triangle v1="%d" v2="%d" v3="%d"/>' % t for t in triangles + more[1])
volumes = "".join(
    f'<volume firstid="{first}" lastid="{first + 11}"><metadata type="volume" key="name" value="{kind}"/>'
    f'<metadata type="volume" key="volume_type" value="{kind}"/></volume>'
    for first, kind in ((0, "ModelPart"), (12, "SupportBlocker"))
)
types = (
    '<Types xmlns="http://schemas.openxmlformats.org/package/2006/content-types">'
    '<Default Extension="rels" ContentType="application/vnd.openxmlformats-package.relationships+xml"/>'
    '<Default Extension="model" ContentType="application/vnd.ms-package.3dmanufacturing-3dmodel+xml"/>'
    '<Default Extension="config" ContentType="text/xml"/></Types>'
)
start = (
    '<Relationships xmlns="http://schemas.openxmlformats.org/package/2006/relationships"><Relationship Target="/3D/3dmodel.model" '
    'Id="rel-1" Type="http://schemas.microsoft.com/3dmanufacturing/2013/01/3dmodel"/></Relationships>'
)
name = sys.argv[1] + "/cube.3mf"
with zipfile.ZipFile(name, "w") as package:
    package.writestr("[Content_Types].xml", types)
    package.writestr("_rels/.rels", start)
    package.writestr(
        "3D/3dmodel.model",
        f'<model unit="millimeter" xmlns="{CORE}"><resources><object id="1" type="model"><mesh><vertices>{vertices}</vertices>'
        f'<triangles>{faces}</triangles></mesh></object></resources><build><item objectid="1"/></build></model>',
    )
    package.writestr(
        "Metadata/Slic3r_PE_model.config",
        f'<?xml version="1.0" encoding="UTF-8"?>\n<config><object id="1" instances_count="1">{volumes}</object></config>',
    )

mesh = trimesh.load_scene(name).to_mesh()
print(f"trimesh: {len(mesh.faces)} triangles, {mesh.extents[0]:g} mm")
model = lib3mf.get_wrapper().CreateModel()
reader = model.QueryReader("3mf")
reader.ReadFromFile(name)
every = model.GetMeshObjects()
every.MoveNext()
found = every.GetCurrentMeshObject()
xs = [v.Coordinates[0] for v in found.GetVertices()]
print(f"lib3mf: {found.GetTriangleCount()} triangles, {max(xs) - min(xs):g} mm, warnings: {reader.GetWarningCount()}")
EOF
seen=$("$work/venv/bin/python" "$work/look.py" "$work")
echo "$seen"
[ "$seen" = "trimesh: 24 triangles, 60 mm
lib3mf: 24 triangles, 60 mm, warnings: 0" ]

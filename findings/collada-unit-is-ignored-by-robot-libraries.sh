#!/usr/bin/env bash
# yourdfpy and Pinocchio's coal take a COLLADA mesh of millimetres for one of metres.
#
# Versions: yourdfpy 0.0.60, coal 3.0.3, trimesh 5.2.0, numpy 2.4, Python 3.11.
# Behaviour: a COLLADA file names its unit (<unit name="millimeter" meter="0.001"/>), as CAD programs and Blender write it, and its up
#   axis. RViz and Gazebo scale a mesh of a URDF by it. A part of 100 mm that a URDF shows without a scale is 100 m long for yourdfpy's
#   scene and for coal's collision mesh, whatever the unit is, and y stays y where the file says Y_UP. trimesh, below the former, keeps
#   the unit in mesh.units and scales nothing. Nothing is said. Expected: 0.1 m, as the file says and RViz shows.
# Output seen:
#   meter: trimesh 100 (1.0 m a unit), yourdfpy 100, coal 100
#   millimeter: trimesh 100 (0.001 m a unit), yourdfpy 100, coal 100
# Exits with 1 when that changes.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/python" -m pip install --quiet yourdfpy==0.0.60 coal==3.0.3 trimesh==5.2.0 pycollada==0.9.3 scipy 'numpy>=2.4,<2.5'

cat > "$work/look.py" <<'EOF'
import sys

import coal
import numpy as np
import trimesh
import yourdfpy

SOURCE = (
    '<source id="p"><float_array id="a" count="12">0 0 0 100 0 0 0 50 0 0 0 25</float_array><technique_common>'
    '<accessor source="#a" count="4" stride="3"><param name="X" type="float"/><param name="Y" type="float"/>'
    '<param name="Z" type="float"/></accessor></technique_common></source>'
)
MESH = (
    f'<mesh>{SOURCE}<vertices id="v"><input semantic="POSITION" source="#p"/></vertices><triangles count="4">'
    '<input semantic="VERTEX" source="#v" offset="0"/><p>0 2 1 0 1 3 1 2 3 0 3 2</p></triangles></mesh>'
)
FILE = (
    '<?xml version="1.0" encoding="utf-8"?><COLLADA xmlns="http://www.collada.org/2005/11/COLLADASchema" version="1.4.1"><asset>'
    "<created>2026-01-01T00:00:00</created><modified>2026-01-01T00:00:00</modified>{}<up_axis>Z_UP</up_axis></asset>"
    f'<library_geometries><geometry id="g">{MESH}</geometry></library_geometries><library_visual_scenes><visual_scene id="s">'
    '<node id="n"><instance_geometry url="#g"/></node></visual_scene></library_visual_scenes><scene>'
    '<instance_visual_scene url="#s"/></scene></COLLADA>'
)
folder = sys.argv[1]
with open(f"{folder}/r.urdf", "w") as file:
    file.write('<robot name="r"><link name="a"><visual><geometry><mesh filename="m.dae"/></geometry></visual></link></robot>')
for name, metres in (("meter", 1.0), ("millimeter", 0.001)):
    with open(f"{folder}/m.dae", "w") as file:
        file.write(FILE.format(f'<unit name="{name}" meter="{metres}"/>'))
    mesh = trimesh.load_scene(f"{folder}/m.dae")
    unit = trimesh.units.unit_conversion(mesh.units, "meters")
    robot = yourdfpy.URDF.load(f"{folder}/r.urdf")
    body = coal.MeshLoader().load(f"{folder}/m.dae", np.ones(3))
    body.computeLocalAABB()
    length = body.aabb_local.max_[0] - body.aabb_local.min_[0]
    print(
        f"{name}: trimesh {mesh.extents[0]:g} ({unit} m a unit), yourdfpy {robot.scene.extents[0]:g}, coal {round(length, 3):g}"
    )
EOF
seen=$("$work/venv/bin/python" "$work/look.py" "$work" 2> /dev/null)
echo "$seen"
[ "$seen" = "meter: trimesh 100 (1.0 m a unit), yourdfpy 100, coal 100
millimeter: trimesh 100 (0.001 m a unit), yourdfpy 100, coal 100" ]

#!/usr/bin/env bash
# trimesh reads a COLLADA file whose mesh has a skin as a scene without geometry, and says nothing.
#
# Versions: trimesh 5.2.0, pycollada 0.9.3, numpy 2.4, Python 3.11.
# Behaviour: a visual scene may show a mesh by instance_geometry or, where joints move it, by instance_controller, as exporters of
#   characters and grippers write it. pycollada gives both; trimesh asks for those of the first kind alone. Expected: the mesh in the
#   shape that it is bound in, or a word that it was left out.
# Output seen:
#   instance_geometry: pycollada 1, trimesh 1, warnings 0
#   instance_controller: pycollada 1, trimesh 0, warnings 0
# Exits with 1 when that changes.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/python" -m pip install --quiet trimesh==5.2.0 pycollada==0.9.3 'numpy>=2.4,<2.5'

cat > "$work/look.py" <<'EOF'
import io
import logging
import warnings

import collada
import trimesh


def source(name, kind, values, params, stride=1):
    shown = "".join(f'<param name="{n}" type="{t}"/>' for n, t in params)
    count = len(values.split())
    return (
        f'<source id="{name}"><{kind}_array id="{name}-a" count="{count}">{values}</{kind}_array><technique_common>'
        f'<accessor source="#{name}-a" count="{count // stride}" stride="{stride}">{shown}</accessor></technique_common></source>'
    )


EYE = "1 0 0 0 0 1 0 0 0 0 1 0 0 0 0 1"
POSITIONS = source("p", "float", "0 0 0 1 0 0 0 1 0", [(k, "float") for k in "XYZ"], 3)
SKIN = (
    f'<skin source="#g"><bind_shape_matrix>{EYE}</bind_shape_matrix>'
    + source("j", "Name", "bone", [("JOINT", "name")])
    + source("m", "float", EYE, [("TRANSFORM", "float4x4")], 16)
    + source("w", "float", "1", [("WEIGHT", "float")])
    + '<joints><input semantic="JOINT" source="#j"/><input semantic="INV_BIND_MATRIX" source="#m"/></joints>'
    '<vertex_weights count="3"><input semantic="JOINT" source="#j" offset="0"/><input semantic="WEIGHT" source="#w" offset="1"/>'
    "<vcount>1 1 1</vcount><v>0 0 0 0 0 0</v></vertex_weights></skin>"
)


def document(shown):
    return f"""<?xml version="1.0"?><COLLADA xmlns="http://www.collada.org/2005/11/COLLADASchema" version="1.4.1">
<asset><created>2026-01-01T00:00:00</created><modified>2026-01-01T00:00:00</modified></asset>
<library_geometries><geometry id="g"><mesh>{POSITIONS}<vertices id="v"><input semantic="POSITION" source="#p"/></vertices>
<triangles count="1"><input semantic="VERTEX" source="#v" offset="0"/><p>0 1 2</p></triangles></mesh></geometry></library_geometries>
<library_controllers><controller id="c">{SKIN}</controller></library_controllers>
<library_visual_scenes><visual_scene id="s"><node id="bone" sid="bone" type="JOINT"/><node id="n">{shown}</node></visual_scene>
</library_visual_scenes><scene><instance_visual_scene url="#s"/></scene></COLLADA>""".encode()


said = []
handler = logging.Handler()
handler.setLevel(logging.WARNING)
handler.emit = said.append
logging.getLogger("trimesh").addHandler(handler)
for kind, shown in (
    ("geometry", '<instance_geometry url="#g"/>'),
    ("controller", '<instance_controller url="#c"><skeleton>#bone</skeleton></instance_controller>'),
):
    said.clear()
    data = document(shown)
    found = len(list(collada.Collada(io.BytesIO(data)).scene.objects(kind)))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        scene = trimesh.load_scene(io.BytesIO(data), file_type="dae")
    loud = [w for w in caught if not issubclass(w.category, (DeprecationWarning, PendingDeprecationWarning))]
    print(f"instance_{kind}: pycollada {found}, trimesh {len(scene.geometry)}, warnings {len(said) + len(loud)}")
EOF
seen=$("$work/venv/bin/python" "$work/look.py")
echo "$seen"
[ "$seen" = "instance_geometry: pycollada 1, trimesh 1, warnings 0
instance_controller: pycollada 1, trimesh 0, warnings 0" ]

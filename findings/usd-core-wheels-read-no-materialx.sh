#!/usr/bin/env bash
# The wheels of usd-core have no reader for MaterialX files: a stage that refers to one loses its materials, and Python gets no exception.
#
# Versions: usd-core 26.11 and 25.11, Python 3.11, Linux x86-64.
# Behaviour: full builds of OpenUSD read .mtlx by the plugin usdMtlx, so that assets such as the Open Chess Set keep all of their looks
#   there. In the wheel no file format has that suffix: the reference does not resolve, Stage.Open returns the stage all the same with the
#   reason on stderr, and what is bound to those materials has none. Stage.GetCompositionErrors() tells.
#   What helps: look at GetCompositionErrors(); ship UsdPreviewSurface beside MaterialX, as the specification advises.
# Output seen, of both versions:
#   reads .mtlx: False, .usda: True
#   material bound: False, composition errors: 1 (Cannot determine file format)
# Exits with 1 when that changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cat > "$folder/look.mtlx" <<'XML'
<?xml version="1.0"?>
<materialx version="1.38">
  <standard_surface name="red" type="surfaceshader"><input name="base_color" type="color3" value="0.8, 0.1, 0.1"/></standard_surface>
  <surfacematerial name="paint" type="material"><input name="surfaceshader" type="surfaceshader" nodename="red"/></surfacematerial>
</materialx>
XML
cat > "$folder/m.usda" <<'USD'
#usda 1.0
( defaultPrim = "m" )
def Xform "m"
{
    def Cube "cube" (prepend apiSchemas = ["MaterialBindingAPI"])
    {
        rel material:binding = </m/Looks/Materials/paint>
    }
    def Scope "Looks" (prepend references = @./look.mtlx@</MaterialX>)
    {
    }
}
USD
cat > "$folder/run.py" <<'PY'
import sys

from pxr import Sdf, Usd, UsdShade

mtlx, usda = (Sdf.FileFormat.FindByExtension(s) is not None for s in ("mtlx", "usda"))
print(f"reads .mtlx: {mtlx}, .usda: {usda}")
stage = Usd.Stage.Open(sys.argv[1])
bound = UsdShade.MaterialBindingAPI(stage.GetPrimAtPath("/m/cube")).ComputeBoundMaterial()[0]
errors = [str(e) for e in stage.GetCompositionErrors()]
known = all("Cannot determine file format" in e for e in errors)
print(f"material bound: {bool(bound)}, composition errors: {len(errors)} ({'Cannot determine file format' if known else errors})")
sys.exit(0 if not mtlx and usda and not bound and len(errors) == 1 and known else 1)
PY
for version in 25.11 26.11; do
  python3 -m venv "$folder/$version"
  "$folder/$version/bin/pip" install --quiet "usd-core==$version"
  "$folder/$version/bin/python" "$folder/run.py" "$folder/m.usda" 2> "$folder/log"
done

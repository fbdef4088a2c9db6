"""Pinhole intrinsics from the files that calibration tools and data sets keep them in, for ``CameraIntrinsics.from_file``."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import scipy.io
import yaml

from .errors import InputError

_EXPECTED = (
    "expected a 3x3 camera matrix as text (cam_K.txt) or .npy, BOP's camera.json or scene_camera.json, a camera_info or "
    "camera_calibration YAML, Kalibr's YAML, or what Open3D, RealSense, OpenCV, COLMAP, Isaac Sim or NeRF tools write"
)
# Names as they are compared: small letters and digits alone.
_FX, _FY = ("fx", "flx", "camerafx", "camera1fx", "fxcolor"), ("fy", "fly", "camerafy", "camera1fy", "fycolor")
_CX, _CY = ("cx", "ppx", "cameracx", "camera1cx", "mxcolor"), ("cy", "ppy", "cameracy", "camera1cy", "mycolor")
_MATRICES = (
    *("camk", "k", "cameramatrix", "intrinsicmatrix", "intrinsics", "intrinsic", "m", "m1", "mtx", "matrix"),
    "mcalibrationcolorintrinsic",
)
_WIDTHS = ("width", "imagewidth", "w", "camerawidth", "imgwidth", "colorwidth", "mcolorwidth")
_HEIGHTS = ("height", "imageheight", "h", "cameraheight", "imgheight", "colorheight", "mcolorheight")
_SIZES = ("resolution", "imagesize", "imgsize", "size", "wh")
_COEFFICIENTS = ("d", "distortioncoefficients", "distortioncoeffs", "coeffs", "dist", "distcoeffs", "distortion")
# The first two name the distortion.
_MODELS = ("distortionmodel", "model", "cameramodel", "cameratype", "modeltype", "lensmodel", "type")
_UNSAID = ("", "opencv", "fullopencv", "pinhole", "perspective", "camera")
_FISHEYE = ("equidistant", "fisheye", "opencvfisheye", "kb4", "kannalabrandt", "kannalabrandt4", "kannalabrandt8")
_OTHER_LENSES = (
    "ds",
    "doublesphere",
    "ucm",
    "eucm",
    "omni",
    "mei",
    "fov",
    "scaramuzza",
    "ocam",
    "rational8",
    "fisheye624",
)
_OF_COLMAP = {
    **dict.fromkeys(("SIMPLE_RADIAL", "RADIAL", "OPENCV"), "plumb_bob"),
    **dict.fromkeys(("SIMPLE_RADIAL_FISHEYE", "RADIAL_FISHEYE", "OPENCV_FISHEYE"), "equidistant"),
    "FULL_OPENCV": "rational_polynomial",
}
# Mappings whose values belong to the camera around them: of VINS, Zivid, Basalt and others.
_PARTS = ("projectionparameters", "distortionparameters", "cameramatrix", "distortion", "intrinsics", "intrinsic")
# ORB-SLAM, NICE-SLAM, YCB-Video, BundleFusion: units of depth in a metre. NeRF tools, RealSense: metres in a unit.
_UNITS_PER_METRE = ("depthmapfactor", "rgbddepthmapfactor", "pngdepthscale", "factordepth", "mdepthshift")
_METRES_PER_UNIT = ("integerdepthscale", "depthunitscalefactor", "depthunits")


@dataclass(frozen=True)
class CameraFile:
    """fx, fy, cx, cy: pixels. size: width and height, None where the file does not say. model, distortion: of the lens as the file
    names it; empty: none. depth_unit: metres per unit of 16-bit depth, None where the file does not say."""

    fx: float
    fy: float
    cx: float
    cy: float
    size: tuple[int, int] | None = None
    model: str = ""
    distortion: tuple[float, ...] = ()
    depth_unit: float | None = None

    def at(self, path: Path, width: int, height: int) -> CameraFile:
        """For images of that size: the same where the file says it or none, scaled where it is of the same view at another
        resolution. Raises InputError."""
        if self.size is None or self.size == (width, height):
            return replace(self, size=(width, height))
        x, y = width / self.size[0], height / self.size[1]
        if abs(x / y - 1) > 0.01:
            raise InputError(
                "bad_camera_info",
                f"camera file {path} is of {self.size[0]}x{self.size[1]} pixels, the images have {width}x{height}: that is another "
                "view; give the file of these images",
            )
        # Pixel 0 reaches from -0.5 to 0.5.
        cx, cy = (self.cx + 0.5) * x - 0.5, (self.cy + 0.5) * y - 0.5
        return replace(self, fx=self.fx * x, fy=self.fy * y, cx=cx, cy=cy, size=(width, height))


def read_camera(path: str | Path) -> CameraFile:
    """The colour camera of a file. Raises InputError that names the file, and the cameras where it has several."""
    found = read_cameras(path)
    named = {name: camera for name, camera in found.items() if re.search(r"rgb|colou?r", name, re.I)} or found
    first = next(iter(named.values()))
    if any(camera != first for camera in named.values()):
        raise InputError(
            "bad_camera_info",
            f"camera file {path} holds {len(named)} different cameras ({', '.join(list(named)[:6])}), none of which alone is "
            "named rgb or color; write the matrix of the colour camera into a file of its own",
        )
    return first


def image_number(path: Path) -> str | None:
    """The last number of an image's name, an index or a time with a point; None without."""
    found = re.findall(r"\d+(?:\.\d+)?", path.stem)
    return str(found[-1]) if found else None


def read_cameras(path: str | Path) -> dict[str, CameraFile]:
    """Every camera of a file, one at least, by where it is: BOP's scene_camera.json has one for each image's number.

    Raises InputError that names the file.
    """
    path = Path(path).expanduser()
    try:
        found = _cameras(path, path.read_bytes())
    except OSError as error:
        raise InputError("bad_camera_info", f"camera file {path} cannot be read: {error.strerror}") from error
    except Exception as error:  # whatever a damaged file makes of OpenCV, numpy and YAML
        said = " ".join(str(error).split())[:160]
        raise InputError("bad_camera_info", f"camera file {path} cannot be read ({said}); {_EXPECTED}") from error
    if not found:
        raise InputError("bad_camera_info", f"camera file {path} holds no intrinsics; {_EXPECTED}")
    for name, camera in found.items():
        values = (camera.fx, camera.fy, camera.cx, camera.cy)
        where = f"camera file {path}{f' ({name})' if name else ''} has fx={camera.fx:g}, fy={camera.fy:g}, cx={camera.cx:g}, cy={camera.cy:g}"
        if not all(math.isfinite(v) for v in values) or camera.fx <= 0 or camera.fy <= 0:
            raise InputError("bad_camera_info", f"{where}; fx and fy must be positive and all finite, in pixels")
        if camera.fx < 10:
            raise InputError("bad_camera_info", f"{where}: that is no focal length in pixels (in millimetres?)")
    return found


def _cameras(path: Path, data: bytes) -> dict[str, CameraFile]:
    """Cameras by where they are in the file."""
    if data[:6] == b"\x93NUMPY":
        return {"": _of_numbers(np.load(path, allow_pickle=False).ravel().tolist())}
    if data[:6] == b"MATLAB":
        return _by_place({k: _plain(v) for k, v in scipy.io.loadmat(str(path)).items()})
    text = data.decode("utf-8-sig")
    if text.lstrip().startswith("<?xml") and "<opencv_storage" not in text:
        raise ValueError("it is XML of another program than OpenCV")
    if text.lstrip().startswith(("%YAML", "<?xml", "<opencv_storage")) or "!!opencv-matrix" in text:
        return _by_place(_opencv(path))
    if path.suffix.lower() == ".json" or text.lstrip().startswith("{"):
        return _by_place(json.loads(text))
    if text.startswith("# oST"):
        raise ValueError("it is camera_calibration's ost.txt; take ost.yaml, which is beside it")
    lines = [
        line.split("#")[0].replace(",", " ").replace("[", " ").replace("]", " ").split() for line in text.splitlines()
    ]
    words = [word for line in lines for word in line]
    if _numeric(words):
        return {"": _of_numbers([float(w) for w in words])}
    colmap = {line[0]: _of_colmap(line) for line in lines if len(line) > 4 and line[0].isdigit() and line[1].isupper()}
    if colmap:
        return colmap
    if all("=" in line for line in text.splitlines() if line.strip() and not line.lstrip().startswith("#")):
        text = text.replace("=", ": ")
    try:
        tree = next(iter(yaml.safe_load_all(text)), None)  # ros2 topic echo ends each message with ---
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f" (line {mark.line + 1})" if mark else ""
        raise ValueError(f"it is neither numbers nor YAML{where}") from error
    return _by_place(tree)


def _by_place(tree: Any) -> dict[str, CameraFile]:
    """Raises ValueError for two cameras of one image."""
    found: dict[str, CameraFile] = {}
    for where, camera in _search(tree, ""):
        if found.setdefault(where, camera) != camera:
            raise ValueError(f"two different cameras of the image number {where}")
    return found


def _plain(value: Any) -> Any:
    """A matrix of MATLAB as lists, of one number as that."""
    if not isinstance(value, np.ndarray):
        return value
    return value.item() if value.size == 1 else value.tolist()


def _numeric(words: Sequence[str]) -> bool:
    try:
        return bool(words) and all(math.isfinite(float(w)) for w in words)
    except ValueError:
        return False


def _opencv(path: Path) -> Any:
    """The tree of a FileStorage: matrices as nested lists."""
    storage = cv2.FileStorage(str(path), cv2.FILE_STORAGE_READ)

    def tree(node: Any) -> Any:
        if node.isMap():
            matrix = node.mat() if "data" in node.keys() else None  # noqa: SIM118 - no mapping of Python
            return {k: tree(node.getNode(k)) for k in node.keys()} if matrix is None else matrix.tolist()  # noqa: SIM118
        if node.isSeq():
            return [tree(node.at(i)) for i in range(node.size())]
        return node.string() if node.isString() else node.real()

    try:
        root = storage.root()
        return {key: tree(root.getNode(key)) for key in root.keys()}  # noqa: SIM118
    finally:
        storage.release()


def _of_colmap(line: Sequence[str]) -> CameraFile:
    """A line of cameras.txt: id, model, width, height, parameters. Its pixel 0 reaches from 0 to 1. Raises ValueError."""
    values = [float(w) for w in line[2:]]
    width, height, *rest = values
    name = line[1].upper()
    one = name.startswith("SIMPLE") or name in ("RADIAL", "RADIAL_FISHEYE")
    fx, fy, cx, cy = (rest[0], *rest[:3]) if one else rest[:4]
    distortion, model = tuple(rest[3 if one else 4 :]), ""
    if any(distortion):
        model = _OF_COLMAP.get(name, "")
        if not model:
            raise ValueError(_other_lens(name))
        distortion += (0.0,) * (4 - len(distortion))  # k, or k1 and k2
    return CameraFile(fx, fy, cx - 0.5, cy - 0.5, (int(width), int(height)), model, distortion if model else ())


def _other_lens(name: str) -> str:
    return f"its lens model {name!r} is not read; undistort the images to a pinhole camera and give its matrix"


def _of_numbers(values: Sequence[float]) -> CameraFile:
    """A matrix of 3x3, 3x4 or 4x4, also column by column, or fx, fy, cx, cy, also behind width and height. Raises ValueError."""
    if len(values) == 4:
        fx, fy, cx, cy = (float(v) for v in values)
        return CameraFile(fx, fy, cx, cy)
    if len(values) == 6 and float(values[0]).is_integer() and 0 < values[4] < values[0] and 0 < values[5] < values[1]:
        width, height, fx, fy, cx, cy = (float(v) for v in values)  # ARKitScenes
        return CameraFile(fx, fy, cx, cy, (int(width), int(height)))
    if len(values) not in (9, 12, 16):
        raise ValueError(f"{len(values)} numbers")
    K = np.array(values, np.float64).reshape(-1, {9: 3, 12: 4, 16: 4}[len(values)])[:3, :3]
    if not K[:2, 2].any() and K[2, :2].any():  # Open3D and Record3D write columns
        K = K.T
    if abs(K[2, 2] - 1) > 1e-6 or abs(K[2, :2]).max() > 1e-9 or abs(K[1, 0]) > 1e-9:
        raise ValueError(f"{K.tolist()} is no camera matrix [fx, 0, cx; 0, fy, cy; 0, 0, 1]")
    return CameraFile(float(K[0, 0]), float(K[1, 1]), float(K[0, 2]), float(K[1, 2]))


def _search(tree: Any, where: str, unit: float | None = None) -> Iterator[tuple[str, CameraFile]]:
    """Cameras in nested mappings. unit: of depth, as a mapping around says."""
    if isinstance(tree, list):
        for i, item in enumerate(tree):
            yield from _search(item, _image_number(item) or f"{where}[{i}]", unit)
    if not isinstance(tree, Mapping):
        return
    named = _named(tree)
    parts = {key: value for k in _PARTS if isinstance(named.get(k), Mapping) for key, value in _named(named[k]).items()}
    camera = _of_isaac(named) or _of_mapping(parts | named)
    unit = _depth_unit(named) or unit
    if camera is not None:
        yield where, replace(camera, depth_unit=unit)
        return
    for key, value in tree.items():
        yield from _search(value, f"{where}/{key}" if where else str(key), unit)


def _named(tree: Mapping[Any, Any]) -> dict[str, Any]:
    return {_letters(key): value for key, value in tree.items()}


def _letters(text: Any) -> str:
    return re.sub(r"[^a-z0-9]", "", str(text).lower())


def _image_number(item: Any) -> str:
    """Of a frame of NeRF's transforms.json, which may have intrinsics of its own: the number of its image; "" of others."""
    name = item.get("file_path") if isinstance(item, Mapping) else None
    return image_number(Path(str(name))) or "" if name else ""


def _of_isaac(named: Mapping[str, Any]) -> CameraFile | None:
    """Isaac Sim's camera_params: OpenGL's projection matrix for row vectors, whose image reaches from -1 to 1, and its y up."""
    projection, size = _numbers(named.get("cameraprojection")), _numbers(named.get("renderproductresolution"))
    if projection is None or size is None or len(projection) != 16 or len(size) != 2:
        return None
    width, height = size
    cx, cy = (1 - projection[8]) * width / 2 - 0.5, (1 + projection[9]) * height / 2 - 0.5
    return CameraFile(projection[0] * width / 2, projection[5] * height / 2, cx, cy, (int(width), int(height)))


def _of_mapping(named: Mapping[str, Any]) -> CameraFile | None:
    def first(keys: Sequence[str], read: Callable[[Any], Any]) -> Any:
        return next((found for key in keys if key in named and (found := read(named[key])) is not None), None)

    four = [first(keys, _scalar) for keys in (_FX, _FY, _CX, _CY)]
    if None in four:
        matrix = first(_MATRICES, _matrix)
        if matrix is None:
            return None
        four = [matrix.fx, matrix.fy, matrix.cx, matrix.cy]
    width, height = first(_WIDTHS, _scalar), first(_HEIGHTS, _scalar)
    pair = first(_SIZES, _numbers)
    size = (
        (int(width), int(height))
        if width and height
        else (int(pair[0]), int(pair[1]))
        if pair and len(pair) == 2
        else None
    )
    model = next((m for key in _MODELS[:2] if isinstance(m := named.get(key), str)), "")
    lens = next((m for key in _MODELS if (m := _letters(named.get(key))) in (*_FISHEYE, *_OTHER_LENSES)), "")
    if lens in _OTHER_LENSES:
        raise ValueError(
            f"its lens model {lens!r} is not read; undistort the images to a pinhole camera and give its matrix"
        )
    names = ("k1", "k2", "k3", "k4") if lens in _FISHEYE else ("k1", "k2", "p1", "p2", "k3")
    single = [first((name, f"camera{name}", f"camera1{name}"), _scalar) or 0.0 for name in names]
    coefficients = tuple(first(_COEFFICIENTS, _numbers) or (single if any(single) else ()))
    if lens in _FISHEYE:
        model = "equidistant"
    elif _letters(model) in _UNSAID:
        model = "plumb_bob" if len(coefficients) <= 5 else "rational_polynomial"
    if not any(coefficients):
        coefficients, model = (), ""
    model = model.lower()
    fx, fy, cx, cy = four
    return CameraFile(fx, fy, cx, cy, size, model, coefficients)


def _scalar(value: Any) -> float | None:
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None


def _numbers(value: Any) -> list[float] | None:
    """Of a list, nested or not, of a text, or of a mapping that has them as ``data``."""
    if isinstance(value, Mapping):
        value = value.get("data")
    if isinstance(value, str) and len(words := value.split()) > 1 and _numeric(words):
        return [float(w) for w in words]
    if not isinstance(value, list):
        return None
    flat = [v for item in value for v in (item if isinstance(item, list) else [item])]
    numbers = [_scalar(v) for v in flat]
    return None if None in numbers else [n for n in numbers if n is not None]


def _matrix(value: Any) -> CameraFile | None:
    try:
        return _of_numbers(_numbers(value) or [])
    except ValueError:
        return None


def _depth_unit(named: Mapping[str, Any]) -> float | None:
    """Metres per unit of depth of 16 bits. BOP's depth_scale is in millimetres, RealSense's in metres, which are never above 1 cm."""

    def first(keys: Sequence[str]) -> float | None:
        return next((found for key in keys if (found := _scalar(named.get(key))) is not None and found > 0), None)

    per_metre, metres, scale = first(_UNITS_PER_METRE), first(_METRES_PER_UNIT), first(("depthscale",))
    if per_metre is None and (first(("scale",)) or 0) > 100:  # NICE-SLAM's Replica; other scales are of the scene
        per_metre = first(("scale",))
    if per_metre is not None and per_metre > 1:
        return 1.0 / per_metre
    if metres is not None and metres < 0.01:
        return metres
    if scale is None:
        return None
    return scale if scale < 0.01 else scale * 0.001 if scale <= 100 else 1.0 / scale

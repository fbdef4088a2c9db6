"""Camera files as calibration tools and data sets write them, all of one camera."""

from __future__ import annotations

import json

FX, FY, CX, CY = 600.5, 601.5, 319.25, 241.75
ROWS = [FX, 0.0, CX, 0.0, FY, CY, 0.0, 0.0, 1.0]
COLUMNS = [FX, 0.0, 0.0, 0.0, FY, 0.0, CX, CY, 1.0]
OF_SIZE = {"width": 640, "height": 480}
OPEN3D = {**OF_SIZE, "intrinsic_matrix": COLUMNS}
PLAIN = {"fx": FX, "fy": FY, "cx": CX, "cy": CY}
REALSENSE = {"fx": FX, "fy": FY, "ppx": CX, "ppy": CY, **OF_SIZE}

CAMERA_CALIBRATION = f"""image_width: 640
image_height: 480
camera_name: head
camera_matrix:
  rows: 3
  cols: 3
  data: {ROWS}
distortion_model: plumb_bob
distortion_coefficients: {{rows: 1, cols: 5, data: [0.1, -0.2, 0.0, 0.0, 0.0]}}
projection_matrix: {{rows: 3, cols: 4, data: [590.0, 0, 318.0, 0, 0, 592.0, 240.0, 0, 0, 0, 1, 0]}}
"""
ECHO = f"header:\n  frame_id: camera\nheight: 480\nwidth: 640\ndistortion_model: plumb_bob\nd: [0.0, 0.0]\nk: {ROWS}\n---\n"
KALIBR = f"""cam0:
  camera_model: pinhole
  distortion_coeffs: [0.1, -0.2, 0.001, 0.002]
  distortion_model: radtan
  intrinsics: [{FX}, {FY}, {CX}, {CY}]
  resolution: [640, 480]
  rostopic: /camera/color/image_raw
"""
ORB_SLAM = f"""%YAML:1.0
Camera.type: "PinHole"
Camera1.fx: {FX}
Camera1.fy: {FY}
Camera1.cx: {CX}
Camera1.cy: {CY}
Camera1.k1: 0.1
Camera.width: 640
Camera.height: 480
RGBD.DepthMapFactor: 5000.0
"""
FILES = {
    "cam_K.txt": f"{FX} 0 {CX}\n0 {FY} {CY}\n0 0 1\n",
    "numpy.txt": "\n".join(" ".join(f"{v:.18e}" for v in ROWS[i : i + 3]) for i in (0, 3, 6)),
    "comma.txt": f"# K\n[[{FX}, 0, {CX}],\n [0, {FY}, {CY}],\n [0, 0, 1]]\n",
    "intrinsic_color.txt": f"{FX} 0 {CX} 0\n0 {FY} {CY} 0\n0 0 1 0\n0 0 0 1\n",
    "four.txt": f"{FX} {FY} {CX} {CY}\n",
    "equals.txt": f"fx={FX}\nfy={FY}\ncx={CX}\ncy={CY}\n",
    "cameras.txt": f"# Camera list\n1 PINHOLE 640 480 {FX} {FY} {CX + 0.5} {CY + 0.5}\n",
    "camera.json": json.dumps({"cx": CX, "cy": CY, "depth_scale": 0.1, "fx": FX, "fy": FY, **OF_SIZE}),
    "scene_camera.json": json.dumps(
        {str(i): {"cam_K": ROWS, "depth_scale": 0.1, "cam_R_w2c": COLUMNS} for i in (3, 5)}
    ),
    "open3d.json": json.dumps(OPEN3D),
    "open3d_trajectory.json": json.dumps({"parameters": [{"extrinsic": [1.0] * 16, "intrinsic": OPEN3D}] * 2}),
    "record3d": json.dumps({"K": COLUMNS, "w": 640, "h": 480, "poses": []}),
    "transforms.json": json.dumps({"fl_x": FX, "fl_y": FY, "cx": CX, "cy": CY, "w": 640, "h": 480, "frames": []}),
    "realsense.json": json.dumps({**REALSENSE, "model": "Inverse Brown Conrady", "coeffs": [0.0] * 5}),
    "two.json": json.dumps({"depth": {**REALSENSE, "fx": 380.0}, "color": REALSENSE, "depth_scale": 0.001}),
    "realsense_unit.json": json.dumps({"color": REALSENSE, "depth_scale": 0.00025}),
    "cam_params.json": json.dumps({"camera": {"w": 640, "h": 480, **PLAIN, "scale": 6553.5}}),
    "nice_slam.yaml": f"cam:\n  H: 480\n  W: 640\n  fx: {FX}\n  fy: {FY}\n  cx: {CX}\n  cy: {CY}\n  png_depth_scale: 6553.5\n",
    "48458_3420.1.pincam": f"640 480 {FX} {FY} {CX} {CY}",
    "camera_matrix.csv": f"{FX}, 0.0, {CX}\n0.0, {FY}, {CY}\n0.0, 0.0, 1.0\n",
    "info.txt": f"m_colorWidth = 640\nm_colorHeight = 480\nm_depthShift = 1000\nm_calibrationColorIntrinsic = {FX} 0 {CX} 0 0 {FY} "
    f"{CY} 0 0 0 1 0 0 0 0 1\n",
    "info.yml": f"0:\n  cam_K: {ROWS}\n  depth_scale: 1.0\n1:\n  cam_K: {ROWS}\n  depth_scale: 1.0\n",
    "scene0000_00.txt": f"colorWidth = 640\ncolorHeight = 480\nfx_color = {FX}\nfy_color = {FY}\nmx_color = {CX}\nmy_color = {CY}\n"
    "fx_depth = 570.1\nfy_depth = 570.2\n",
    "ost.yaml": CAMERA_CALIBRATION,
    "echo.yaml": ECHO,
    "camchain.yaml": KALIBR,
    "orb.yaml": ORB_SLAM,
    "bom.yaml": "\ufefffx: 600.5\nfy: 601.5\ncx: 319.25\ncy: 241.75\n",
}

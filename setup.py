"""Packaging for both worlds: colcon (ament_python) on a ROS install, and plain pip without one."""

from pathlib import Path

from setuptools import find_packages, setup

NAME = "rfdetr_foundationpose"
ROOT = Path(__file__).resolve().parent


def tree(folder: str) -> list[tuple[str, list[str]]]:
    """data_files entries that keep the folder's layout under share/<package>."""
    files: dict[str, list[str]] = {}
    for path in sorted((ROOT / folder).rglob("*")):
        if path.is_file() and "__pycache__" not in path.parts:
            relative = path.relative_to(ROOT)
            files.setdefault(f"share/{NAME}/{relative.parent.as_posix()}", []).append(relative.as_posix())
    return list(files.items())


setup(
    name=NAME,
    version="0.1.0",
    description="Real-time 6-DoF object pose estimation and tracking from RGB-D, as a ROS 2 node and a Python library",
    long_description=(ROOT / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    # Of the methods that this is made of; the package itself has no public address yet.
    project_urls={
        "FoundationPose (paper)": "https://arxiv.org/abs/2312.08344",
        "RF-DETR": "https://github.com/roboflow/rf-detr",
        "NVIDIA Warp": "https://github.com/NVIDIA/warp",
    },
    maintainer="rfdetr_foundationpose maintainers",
    maintainer_email="maintainers@rfdetr-foundationpose.invalid",
    python_requires=">=3.10",
    packages=find_packages(include=[NAME, f"{NAME}.*"]),
    package_data={NAME: ["py.typed", "replay/*.j2"]},
    data_files=[
        ("share/ament_index/resource_index/packages", [f"resource/{NAME}"]),
        (f"share/{NAME}", ["package.xml"]),
        *tree("launch"),
        *tree("config"),
        *tree("models"),
    ],
    zip_safe=False,
    install_requires=[
        "torch>=2.4",
        "torchvision>=0.19",
        "rfdetr>=1.9,<2",
        "warp-lang>=1.8,<2",
        "trimesh>=4.4",
        "pycollada>=0.8",  # DAE, what ROS robot descriptions hold; trimesh reads it by the same
        "lxml>=4.9",  # 3MF, for trimesh
        "fast-simplification>=0.1.9",  # large scans: quadric edge collapse, by the makers of PyVista
        "mapbox-earcut>=1.0.1",  # polygons that are not convex; trimesh and three.js triangulate by the same
        "scipy>=1.11",
        "numpy>=1.24",
        "opencv-python-headless>=4.8",  # headless: no libGL needed on a bare machine, and nothing here opens windows
        "pillow>=10",
        "pyyaml>=6",
        "safetensors>=0.4",
        "typer>=0.12",
        "rich>=13",
        "rosbags>=0.10",
        "mcap>=1.1",
        "lz4>=4.0",
        "zstandard>=0.20",
        "matplotlib>=3.7",
        "av>=12",  # VP9 video; supervision brings it
        "jinja2>=3",
        "supervision>=0.26",  # mAP; rfdetr brings it
        "onnx>=1.16",
    ],
    extras_require={
        # Real ROS 2 from PyPI, for machines without a ROS install.
        "ros": [
            "ros-kilted-rclpy",
            "ros-kilted-rmw-fastrtps-cpp",
            "ros-kilted-sensor-msgs",
            "ros-builtin-interfaces",
            "ros-diagnostic-msgs",
            "ros-geometry-msgs",
            "ros-lifecycle-msgs",
            "ros-rcl-interfaces",
            "ros-rosgraph-msgs",
            "ros-std-msgs",
            "ros-std-srvs",
            "ros-visualization-msgs",
        ],
        "trt-rtx": [
            "tensorrt-rtx-cu13>=1.4"
        ],  # RTX cards, CUDA 13; robots bring NVIDIA's own tensorrt, which PyPI has not
        "trt-rtx-cu12": ["tensorrt-rtx-cu12>=1.4"],
        "onnx": ["onnxruntime>=1.17"],
        "fp8": ["triton>=3.4"],  # comes with torch's builds for CUDA
        "rerun": ["rerun-sdk>=0.24"],
        "exr": ["OpenEXR>=3.3"],  # depth of Blender and Record3D, which OpenCV 5's wheels do not read
        "usd": ["usd-core>=24.5"],  # USD meshes, by Pixar's own library
        "scan": ["xatlas>=0.0.11"],  # textures of scanned meshes; no wheels for arm64
        "train": ["rfdetr[train]>=1.9,<2"],
        "dev": [
            "pytest>=8",
            "pytest-timeout>=2.3",
            "ruff>=0.9",
            "mypy>=1.13",
            "kornia>=0.7,<0.8",  # oracle of the observed crops: 0.9 samples them otherwise than the official release
            "onnxruntime>=1.17",
            "xatlas>=0.0.11",
            "usd-core>=24.5",
            "OpenEXR>=3.3",
            "tensorrt-rtx-cu13>=1.4",  # engines are built and refused in tests, without a GPU
            "setuptools>=70.1",  # the packaging tests build a wheel without network
            "rtree>=1.0",  # trimesh ray casting, an oracle of the renderer
            "types-PyYAML",
            "scipy-stubs; python_version >= '3.11'",
        ],
    },
    entry_points={
        "console_scripts": [
            f"rfdetr-foundationpose = {NAME}.cli.main:main",
            f"pose_node = {NAME}.ros.main:main",
        ],
    },
)

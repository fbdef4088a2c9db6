"""A run for the rerun viewer: image, depth cloud, meshes at their poses, plots of confidence, error and latency."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import UserError
from ..interrupts import unblocked
from ..objects import ObjectSpec
from ..pose.mesh import load_object
from .judge import instance_names
from .recording_messages import encode_rgb
from .sinks import DrawnFrame, Series

CAMERA = "world/camera"


class RerunSink:
    """path: where the recording is saved; None opens the viewer. Raises UserError where rerun-sdk is not installed."""

    def __init__(self, path: Path | None, specs: Sequence[ObjectSpec], title: str) -> None:
        try:
            import rerun
            import rerun.blueprint as blueprint
        except ImportError as error:
            raise UserError(
                f"rerun cannot be imported ({error}); install it: pip install 'rfdetr_foundationpose[rerun]'"
            ) from error
        self._rr: Any = rerun
        self._specs = {s.name: s for s in specs}
        self._names = instance_names(specs)
        self._known: set[str] = set()
        self._present: set[str] = set()
        self._stream = rerun.RecordingStream("rfdetr_foundationpose", recording_id=title)
        layout = blueprint.Blueprint(
            blueprint.Horizontal(
                blueprint.Spatial3DView(name="scene", origin="world"),
                blueprint.Vertical(
                    blueprint.Spatial2DView(name="overlay", origin="overlay"),
                    blueprint.TimeSeriesView(name="confidence", origin="confidence"),
                    blueprint.TimeSeriesView(name="latency [ms]", origin="latency"),
                ),
                column_shares=[3, 2],
            ),
            collapse_panels=True,
        )
        if path is None:
            with unblocked():
                rerun.spawn(recording=self._stream, default_blueprint=layout)
        else:
            self._stream.save(str(path), default_blueprint=layout)
        # Optical frames: x right, y down, z forward.
        self._stream.log("world", rerun.ViewCoordinates.RDF, static=True)

    def add(self, drawn: DrawnFrame) -> None:
        rr, stream, frame = self._rr, self._stream, drawn.frame
        stream.set_time("stamp", timestamp=np.datetime64(frame.stamp_ns, "ns"))
        stream.set_time("frame", sequence=drawn.index)
        camera = frame.camera
        pinhole = rr.Pinhole(
            image_from_camera=camera.K, resolution=[camera.width, camera.height], image_plane_distance=0.15
        )
        stream.log(CAMERA, pinhole)
        stream.log(f"{CAMERA}/rgb", self._jpeg(frame.rgb))
        # Invalid values would be drawn as points at the camera.
        depth = np.nan_to_num(frame.depth.astype(np.float32) * np.float32(frame.depth_scale), posinf=0.0, neginf=0.0)
        stream.log(f"{CAMERA}/depth", rr.DepthImage(np.round(depth * 1000).astype(np.uint16), meter=1000.0))
        stream.log("overlay", self._jpeg(drawn.picture))
        present = set()
        for sample in drawn.samples:
            name = sample.object
            present.add(name)
            path = f"world/objects/{name}"
            if name not in self._known:
                self._known.add(name)
                stream.log(f"{path}/mesh", self._mesh(self._names[name]), static=True)
            T = sample.T_cam_obj
            stream.log(path, rr.Transform3D(translation=T[:3, 3], mat3x3=T[:3, :3]))
            for kind, value in (
                ("confidence", sample.confidence),
                ("error/translation_mm", None if sample.error is None else sample.error.translation_mm),
                ("error/rotation_deg", None if sample.error is None else sample.error.rotation_deg),
            ):
                if value is not None and np.isfinite(value):
                    stream.log(f"{kind}/{name}", rr.Scalars(value))
        for name in self._present - present:  # lost: no longer shown
            stream.log(f"world/objects/{name}", rr.Transform3D(scale=0.0))
        self._present = present

    def finish(self, latency: Series, stamp_of: Callable[[float], int]) -> None:
        self._stream.reset_time()
        for stage, points in latency.items():
            for seconds, ms in points:
                self._stream.set_time("stamp", timestamp=np.datetime64(stamp_of(seconds), "ns"))
                self._stream.log(f"latency/{stage}", self._rr.Scalars(ms))
        self._stream.flush()
        self._stream.disconnect()

    def _jpeg(self, rgb: Any) -> Any:
        _, data = encode_rgb(rgb, "jpeg")
        return self._rr.EncodedImage(contents=data.tobytes(), media_type="image/jpeg")

    def _mesh(self, name: str) -> Any:
        """The object in its own frame, with its print."""
        model = load_object(self._specs[name])
        arrays = model.arrays
        if arrays.texture is not None and arrays.uv is not None:
            # A corner a vertex: texture coordinates are the corners'.
            corners = arrays.vertices[arrays.faces].reshape(-1, 3) + model.center
            uv = arrays.uv.reshape(-1, 2).copy()
            uv[:, 1] = 1 - uv[:, 1]
            return self._rr.Mesh3D(
                vertex_positions=corners,
                vertex_normals=arrays.normals[arrays.faces].reshape(-1, 3),
                triangle_indices=np.arange(len(corners)).reshape(-1, 3),
                vertex_texcoords=uv,
                albedo_texture=arrays.texture,
            )
        return self._rr.Mesh3D(
            vertex_positions=arrays.vertices + model.center,
            vertex_normals=arrays.normals,
            triangle_indices=arrays.faces,
            vertex_colors=(arrays.colors * 255).astype(np.uint8),
        )

"""Small folders of colour and depth images with a camera file."""

from __future__ import annotations

import cv2
import numpy as np

K = "60 0 31.5\n0 61 23.5\n0 0 1\n"
MILLIMETRES = (np.arange(48 * 64, dtype=np.uint16) // 4).reshape(48, 64) + 400


def color(i):
    image = np.full((48, 64, 3), 40, np.uint8)
    image[:, : 5 + i] = (10, 20, 200)  # BGR: red
    return image


def write(folder, rgb, depth, count=3, *, factor=1, camera=("cam_K.txt", K), numbers=None):
    """``rgb`` and ``depth`` are names with a place for the number."""
    for i in range(count):
        number = i if numbers is None else numbers[i]
        for name, image in ((rgb, color(i)), (depth, (MILLIMETRES * factor + i).astype(np.uint16))):
            path = folder / name.format(number)
            path.parent.mkdir(parents=True, exist_ok=True)
            if path.suffix == ".npy":
                np.save(path, image.astype(np.float32) / 1000)
            elif path.suffix == ".tiff" and name == depth:
                cv2.imwrite(str(path), image.astype(np.float32) / 1000)
            else:
                cv2.imwrite(str(path), image)
    if camera is not None:
        for name in {camera[0].format(i) for i in range(count)}:  # one, or one for each image
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_text(camera[1])
    return folder

"""Masks of any segmenter for pose_node, which then needs no detector of its own (detector.source=mask-topic).

python examples/mask_publisher.py mug --hsv 0,120,60,12,255,255 --image /camera/color/image_raw

``segment`` takes a colour image and gives a mask. Here it is a range of colours, which needs no weights; put SAM 2, YOLO
or whatever knows your object in its place. Every mask carries the stamp of its image: that is how the node pairs them.
"""

from __future__ import annotations

import argparse

import cv2
import numpy as np
import rclpy
from numpy.typing import NDArray
from rclpy.node import Node
from rclpy.qos import qos_profile_sensor_data
from sensor_msgs.msg import Image

from rfdetr_foundationpose.camera.images import image_to_rgb


def segment(rgb: NDArray[np.uint8], low: tuple[int, ...], high: tuple[int, ...]) -> NDArray[np.bool_]:
    """rgb (H, W, 3) -> (H, W) bool: the largest piece whose colour is in the range (OpenCV's HSV: hue 0..179)."""
    hsv = cv2.cvtColor(rgb, cv2.COLOR_RGB2HSV)
    inside = cv2.inRange(hsv, np.array(low), np.array(high))
    inside = cv2.morphologyEx(inside, cv2.MORPH_CLOSE, np.ones((5, 5), np.uint8))
    count, labels, stats, _ = cv2.connectedComponentsWithStats(inside)
    if count < 2:
        return np.zeros(rgb.shape[:2], bool)
    return labels == 1 + int(stats[1:, cv2.CC_STAT_AREA].argmax())


class MaskPublisher(Node):
    """``mask/<object>`` (mono8, 255 where the object is) for every colour image."""

    def __init__(self, name: str, image: str, low: tuple[int, ...], high: tuple[int, ...], **kwargs) -> None:
        super().__init__("mask_publisher", **kwargs)
        self.range = low, high
        self.masks = self.create_publisher(Image, f"mask/{name}", 10)
        self.create_subscription(Image, image, self.on_image, qos_profile_sensor_data)

    def on_image(self, message: Image) -> None:
        mask = segment(image_to_rgb(message), *self.range)
        self.masks.publish(
            Image(
                header=message.header,  # the same stamp and frame
                height=mask.shape[0],
                width=mask.shape[1],
                encoding="mono8",
                step=mask.shape[1],
                data=(mask * np.uint8(255)).tobytes(),
            )
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("object", help="name in objects.yaml; mug_1 is the second instance of mug")
    parser.add_argument("--hsv", required=True, help="hue,saturation,value from, then to: 0,120,60,12,255,255 is red")
    parser.add_argument("--image", default="rgb/image", help="colour topic")
    arguments = parser.parse_args()
    numbers = tuple(int(v) for v in arguments.hsv.split(","))
    rclpy.init()
    rclpy.spin(MaskPublisher(arguments.object, arguments.image, numbers[:3], numbers[3:]))


if __name__ == "__main__":
    main()

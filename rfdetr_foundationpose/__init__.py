"""6-DoF object poses from RGB-D: RF-DETR detection and FoundationPose registration and tracking.

The core (everything outside ``ros``) is a plain Python library and never imports rclpy.
"""

__version__ = "0.1.0"

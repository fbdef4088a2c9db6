"""What a camera sends, as arrays: image encodings, compressed transports, calibration. No ROS needed."""

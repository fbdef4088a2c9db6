"""The ROS 2 node around the pipeline: messages in, messages out, no algorithm."""

"""The synthetic world: procedural objects, RGB-D scenes and recordings with ground truth."""

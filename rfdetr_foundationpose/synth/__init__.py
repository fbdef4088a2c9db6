"""The synthetic world: procedural objects, RGB-D scenes with ground truth, data sets and training data."""

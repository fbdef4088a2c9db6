"""Measurements: accuracy against ground truth, backends against each other, speed, calibration of the confidence."""

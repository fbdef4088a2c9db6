"""Helpers shared by the tests: scenes, commands, doubles of detector, estimator and node."""

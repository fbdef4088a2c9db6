"""Recordings in and out, comparison with ground truth and with baselines, reports."""

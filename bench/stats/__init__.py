"""Metrics, intervals and tests: numpy and scipy only, no model in sight."""

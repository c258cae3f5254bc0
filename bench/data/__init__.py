"""Rows: where they come from (`sources`), how they are read and drawn (`rows`), how they become prompts (`prompts`).

The command line calls this package on every run, so heavy libraries are imported inside functions.
"""

"""Memory and FLOPs of a cell before it runs: its own code, driven once with weights that have shapes and no values.

Weights and everything computed from them are fake tensors, which take no memory. Ids, masks and lengths stay real, so
that control flow is the real one. `live` counts the bytes, `fakes` makes the model, `rehearse` drives a cell, `depth`
extrapolates over the number of blocks, `server` answers the command line from a process of its own.
"""

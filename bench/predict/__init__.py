"""Memory and FLOPs of a cell before it runs: its own code, driven once with weights that have shapes and no values.

Weights and everything computed from them are fake tensors, which take no memory. Ids, masks and lengths stay real, so
that control flow is the real one. `rehearse` drives a cell with the model of `fakes`; `live` logs every storage, from
which `timeline` reads the peaks. What a process would hold resident is found by asking its allocator for the same:
`trace` says what was asked, `replay` asks it again of an empty `heap`, and `outside` measures what no tensor takes.
`depth` extrapolates over the number of blocks, and `__main__` answers the command line from a process of its own.
"""

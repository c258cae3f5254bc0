"""What a cell costs: time, memory by phase, FLOPs, and the machine it ran on."""

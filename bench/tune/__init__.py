"""Fair tuning: the same number of configurations for every strategy, chosen within its labels."""

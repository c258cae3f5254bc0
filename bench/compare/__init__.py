"""The regression gate: two runs, cell by cell. It reads records and predictions only, never a model."""

"""Base models: their names (`catalog`), where they are kept (`cache`), loading them (`base`, which imports torch)."""

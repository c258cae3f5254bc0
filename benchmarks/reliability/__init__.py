"""Faults made on purpose, many times at random moments, and what becomes of the records."""

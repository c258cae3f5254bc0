"""Recorded runs as a shelf: what is there, taken out as a table, checked, and brought to the present schema."""

"""Two checkouts of this project measured in turn on one machine, so that their speed can be compared."""

"""The harness's own figures: how often its intervals hold, its claims err, and whether its engine repeats itself."""

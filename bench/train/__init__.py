"""The one training loop, the order of batches, and the wrappers that strategies share."""

"""From an adapted model to scored test items: readouts, batching and the two ways an answer is read."""

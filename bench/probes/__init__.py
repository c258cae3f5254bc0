"""What a finished cell is asked beyond its score. Nothing here imports torch: models are asked through `Answerer`."""

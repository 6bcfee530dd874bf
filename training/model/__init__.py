"""The twin encoder under training: what of it moves, how fast, and how its towers take batches."""

"""The loop of a training: steps, validation, checkpoints, and what is told of them."""

"""What a model is trained on: examples, their check, batches, augmentations, and features made once."""

"""What happens to scores after search: hubs corrected, queries expanded, hits spread."""

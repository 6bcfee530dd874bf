"""Training of twin encoders; the package is reserved, nothing is here yet."""

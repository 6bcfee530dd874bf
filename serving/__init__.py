"""The service for programs; the package is reserved, nothing is here yet."""

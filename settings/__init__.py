"""The response network's settings, and the snapshot of everything public that crosses to the request network."""

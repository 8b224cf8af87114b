"""Redis, which may be empty or away at any moment: nothing is lost, only slower for a while."""

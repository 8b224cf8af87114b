"""The work that workflows decide on: one class per concern, its dependencies handed to its constructor."""

"""Activities: one class per concern, with its dependencies as constructor arguments."""

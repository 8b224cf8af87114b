"""A request in the request network: committed in groups, its result applied and awaited, its callback made."""

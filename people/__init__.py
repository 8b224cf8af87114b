"""Users of both networks and their API keys, as the response network stores them."""

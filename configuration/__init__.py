"""Settings from the environment, the table of cadences, and how logs look."""

"""Real data to begin with: the airports of the package `airportsdata`, three request types, a user and an operator."""

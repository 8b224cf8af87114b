"""Sample data: the airports of the package `airportsdata`, three request types, a user and an operator."""

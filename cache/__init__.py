"""The Redis cache. Redis may be empty or unreachable at any time: nothing is lost, reads are only slower."""

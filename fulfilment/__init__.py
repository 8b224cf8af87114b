"""A request's life in the request network: group commit, results applied, callers that wait, callbacks."""

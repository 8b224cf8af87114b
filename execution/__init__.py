"""How a request gets its data: by SQL, by HTTP or by a Python function. Knows nothing of batches or Temporal."""

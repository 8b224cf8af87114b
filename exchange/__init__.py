"""The crossing: batches, manifests, signatures, the chain and receipts. It imports no web framework and no Temporal."""

"""The crossing: batches, manifests, signatures, the chain and receipts. Knows no web framework and no Temporal."""

"""The wire format: batches, manifests, signed messages and signed HTTP. Pure: no database, no network."""

"""What all Temporal code shares: the client, resident activities, retries, worker options."""

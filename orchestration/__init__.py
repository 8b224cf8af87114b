"""What workflows, activities and workers share of Temporal: the client, heartbeats, retries, worker options."""

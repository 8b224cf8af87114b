"""Verifying that both networks agree: digests, audits and their comparison. Only reads."""

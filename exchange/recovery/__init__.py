"""What an operator decides after trouble: repairs, new epochs, records in quarantine."""

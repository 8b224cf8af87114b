"""Recovery by an operator: repairs, new epochs, records in quarantine."""

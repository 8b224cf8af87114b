"""The fault harness: a whole Airlock under load and seeded faults, held against a ledger that only the load wrote."""

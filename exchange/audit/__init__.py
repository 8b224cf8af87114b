"""Do both networks agree, to the last record? Digests, audits and their comparison. Changes nothing."""

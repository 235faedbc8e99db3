"""Questions to the audit database. Role: SELECT."""

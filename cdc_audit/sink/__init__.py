"""The writer of the audit database. Role: INSERT on the trail, INSERT and SELECT on the ledger."""

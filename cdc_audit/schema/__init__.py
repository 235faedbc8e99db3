"""Migrations, roles and partitions of the audit database. Role: owner."""

"""``cdc-audit demo``: two throw-away PostgreSQL servers, an application at work, and its audit trail."""

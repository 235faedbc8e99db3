"""The source database: the stream, its slot, its catalog, and what is installed in it. Role: REPLICATION."""

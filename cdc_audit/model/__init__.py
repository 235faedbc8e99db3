"""The values that flow, in flow order: positions, catalog facts, events, contexts, blocks. All frozen."""

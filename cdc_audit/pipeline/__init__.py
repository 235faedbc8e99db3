"""The loop, and the pure decisions that it calls."""

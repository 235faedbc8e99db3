"""Bytes of an output plugin into events. Pure."""

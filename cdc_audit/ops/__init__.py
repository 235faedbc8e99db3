"""Watching: metrics, health, doctor, logging, systemd."""

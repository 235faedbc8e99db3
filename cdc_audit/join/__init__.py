"""Events into changes with their context. Pure."""

"""``python -m cdc_audit`` is the ``cdc-audit`` command."""

from cdc_audit.cli import main

if __name__ == "__main__":
    main()

"""Measurements: ``make bench``, or ``python -m tests.bench --list``. Each module but the first few below is one of them.

``figures`` is what a measurement gives, ``stage`` its servers and databases, ``workloads`` what the source does, ``drain`` the
daemon's way through a slot that is full.
"""

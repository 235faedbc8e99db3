"""A tamper-evident audit trail from a PostgreSQL logical replication slot.

The river, and the rooms (folders) along it::

    source DB ─slot─▶ frame ─decode─▶ event ─join─▶ (change, context) ─seal─▶ audit row ─sink─▶ audit DB
        ▲                                                                                 │
        └──────────────────── acknowledge(position) ◀── receipt ◀─────────────────────────┘

    audit DB ─trail─▶ query                     schema ─▶ audit DB (owner)            ops watches all

Verbs are pure: ``decode``, ``join`` and ``seal`` turn values into values and touch neither clock nor socket.
Nouns touch the world, one database role each: ``source`` (REPLICATION on the source), ``sink`` (INSERT on the
audit database), ``trail`` (SELECT there, and saying that it read) and ``schema`` (owner there). ``pipeline`` is the only
room where source meets sink; what it decides (when to flush, what to acknowledge, retry or stop, what is suspicious) stands
in pure modules of its own. ``ops`` watches, ``cli`` puts everything together. ``model`` holds the values that flow,
``config`` the settings.
``client`` stands apart: applications import it to say who acts, on their own connections; it imports nothing of ours.

Which room may import which is a contract in ``pyproject.toml`` that the tests check.
"""

__version__ = "0.1.0"

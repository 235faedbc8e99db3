"""What an application imports to say who acts: standard library only; it runs on the application's own connections.

    from cdc_audit.client import audit_context

    with audit_context(user_id="u42", email="a@b.c", request_id="7f3a"):
        ...                     # whatever is written here, in this thread or task, is u42's

``context`` holds who acts now, ``payload`` makes a JSON text of it that the source never refuses, ``statement`` tells what
writes, and ``conversation`` what a connection's open transaction has been told already. The modules named after a driver or
framework (psycopg, asyncpg, sqlalchemy, django, asgi, flask, celery) put these together; each is imported by who uses it.
A context is sent once a transaction, before its first write, and again only where it has changed or a rollback to a savepoint
may have taken it along. Reads cost no statement.
"""

from cdc_audit.client.context import audit_context, current_context, for_process, identify
from cdc_audit.client.conversation import ContextUnavailableError, configure

__all__ = [
    "ContextUnavailableError",
    "audit_context",
    "configure",
    "current_context",
    "for_process",
    "identify",
]

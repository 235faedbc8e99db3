"""Django: every database connection says who acts, and the middleware says it of a request.

    INSTALLED_APPS = [..., "cdc_audit.client.django.AuditConfig"]
    MIDDLEWARE = ["cdc_audit.client.django.AuditMiddleware", ...]     # around all that writes, sessions, too

In Django's autocommit mode a statement that writes becomes a transaction of its own with the context in it; inside ``atomic`` the
context is said before the first write. A management command says its name and the user of the operating system.
``CDC_AUDIT = {"TRUSTED_PROXIES": 1}`` takes the client's address from X-Forwarded-For, so many entries from its end.
"""

from __future__ import annotations

import getpass
import sys
from collections.abc import Awaitable, Callable, Mapping
from pathlib import PurePath
from typing import Any

from asgiref.sync import iscoroutinefunction, markcoroutinefunction
from django.apps import AppConfig
from django.conf import settings
from django.db import connections, transaction
from django.db.backends.signals import connection_created
from django.http import HttpRequest, HttpResponseBase

from cdc_audit.client import payload
from cdc_audit.client.context import audit_context, current_context, for_process
from cdc_audit.client.conversation import Conversation
from cdc_audit.client.headers import client_address
from cdc_audit.client.statement import LOG_EVENT, PROBE, SAY

_SAY = SAY.format("%s")
_LOG_EVENT = LOG_EVENT.format(*["%s"] * 5)
_SERVERS = frozenset({"runserver", "testserver", "shell"})


class AuditConfig(AppConfig):  # type: ignore[misc]
    """Puts a wrapper around what each PostgreSQL connection executes."""

    name = "cdc_audit.client.django"
    label = "cdc_audit"

    def ready(self) -> None:
        """Called by Django once."""
        connection_created.connect(_wrap, dispatch_uid="cdc_audit")
        program = PurePath(sys.argv[0]).name
        if (
            program in ("manage.py", "django-admin", "__main__.py")
            and sys.argv[1:2]
            and sys.argv[1] not in _SERVERS
        ):
            for_process(command=sys.argv[1], os_user=_os_user())


class AuditMiddleware:
    """Says of each request who makes it: user, e-mail, address, user agent, and the request id if a header has one.

    The user is looked up when something is first written, so a request that only reads asks for none, and one who logs in during
    a request, or is known to the view only (as with Django REST framework), is named.
    """

    sync_capable = True
    async_capable = True

    def __init__(self, get_response: Callable[[HttpRequest], Any]) -> None:
        self._get_response = get_response
        self._is_async = iscoroutinefunction(get_response)
        if self._is_async:
            markcoroutinefunction(self)
        self._proxies = int(getattr(settings, "CDC_AUDIT", {}).get("TRUSTED_PROXIES", 0))

    def __call__(self, request: HttpRequest) -> HttpResponseBase | Awaitable[HttpResponseBase]:
        """The response, or in an asynchronous chain a coroutine of it."""
        if self._is_async:
            return self._answer(request)
        with audit_context(**self._fields(request)):
            return self._get_response(request)

    async def _answer(self, request: HttpRequest) -> HttpResponseBase:
        with audit_context(**self._fields(request)):
            return await self._get_response(request)

    def _fields(self, request: HttpRequest) -> dict[str, object]:
        headers = request.headers
        forwarded = headers.get("X-Forwarded-For", "")
        return {
            "user_id": lambda: _user(request, "pk"),
            "email": lambda: _user(request, "email"),
            "ip_address": client_address(request.META.get("REMOTE_ADDR"), forwarded, self._proxies),
            "user_agent": headers.get("User-Agent"),
            "request_id": headers.get("X-Request-Id"),
        }


def send_context(using: str = "default") -> None:
    """Say now who acts, in the open transaction: before COPY, or a function that writes whose name isn't configured."""
    connection = connections[using]
    connection.ensure_connection()
    talk = _talk(connection)
    if _is_idle(connection):
        talk.ended()
    due = talk.pending()
    if due is not None and _is_heard(connection, talk):
        _say(connection, talk, due)


def log_event(
    action: str,
    table: str | None = None,
    record_id: object = None,
    data: Mapping[str, object] | None = None,
    *,
    transactional: bool = True,
    using: str = "default",
) -> None:
    """Record what the database can't see (READ, EXPORT, LOGIN, ...), with the context that holds here.

    Not ``transactional``: also if the transaction is rolled back. Raises ValueError for data that have no room in 8 kB.
    """
    given = payload.event_texts(action, table, record_id, data, current_context())
    with connections[using].cursor() as cursor:
        cursor.execute(_LOG_EVENT, (*given, transactional))


def _wrap(connection: Any, **_: Any) -> None:
    """Once for each of Django's connections, which reconnects under the same wrappers."""
    if connection.vendor == "postgresql":
        connection.cdc_audit = Conversation()
        if _execute not in connection.execute_wrappers:
            connection.execute_wrappers.insert(0, _execute)


def _execute(execute: Callable[..., Any], sql: Any, params: Any, many: bool, context: dict[str, Any]) -> Any:
    """Django's execute wrapper: says who acts before what writes."""
    connection = context["connection"]
    talk = _talk(connection)
    is_alone = connection.get_autocommit() and not connection.in_atomic_block
    text = sql if isinstance(sql, str) else sql.as_string(connection.connection)
    due = talk.due(text, in_transaction=not _is_idle(connection), is_alone=is_alone)
    if due is None or not _is_heard(connection, talk):
        return execute(sql, params, many, context)
    if not is_alone:
        _say(connection, talk, due)
        return execute(sql, params, many, context)
    with transaction.atomic(using=connection.alias):
        _say(connection, talk, due)
        return execute(sql, params, many, context)


def _talk(connection: Any) -> Conversation:
    talk: Conversation = connection.cdc_audit
    return talk


def _is_idle(connection: Any) -> bool:
    """Whether no transaction is open, by the driver's own word (psycopg 3 and psycopg2 number it alike)."""
    return int(connection.connection.info.transaction_status) == 0


def _is_heard(connection: Any, talk: Conversation) -> bool:
    if not talk.must_ask:
        return True
    with connection.cursor() as cursor:
        cursor.execute(PROBE)
        return talk.learn(cursor.fetchone()[0])


def _say(connection: Any, talk: Conversation, text: str) -> None:
    try:
        with connection.cursor() as cursor:
            cursor.execute(_SAY, (text,))
    except BaseException:
        talk.failed()
        raise
    talk.told(text)


def _user(request: HttpRequest, attribute: str) -> object:
    """An attribute of who is logged in, None if nobody is."""
    user = getattr(request, "user", None)
    return getattr(user, attribute, None) or None if user is not None and user.is_authenticated else None


def _os_user() -> str | None:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container's user may have no name
        return None

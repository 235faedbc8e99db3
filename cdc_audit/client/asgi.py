"""ASGI applications (Starlette, FastAPI, Django's own, ...): says of each request where it comes from, and who makes it.

    app.add_middleware(AuditMiddleware)

Who it is, a request handler or dependency says as soon as it knows: ``identify(user_id=..., email=...)``. Pure ASGI: what
is said in the middleware holds in the handlers, in their threads and in background tasks.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from typing import Any

from cdc_audit.client.context import audit_context
from cdc_audit.client.headers import client_address

_Scope = MutableMapping[str, Any]
_Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
_Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
_App = Callable[[_Scope, _Receive, _Send], Awaitable[None]]


class AuditMiddleware:
    """Opens a context around each request and web socket.

    ``user(scope)``, where given, returns the fields that say who it is, when something is first written (for instance from
    ``scope["session"]``). ``trusted_proxies``: so many of our own proxies add to X-Forwarded-For.
    """

    def __init__(
        self,
        app: _App,
        *,
        user: Callable[[_Scope], dict[str, object]] | None = None,
        trusted_proxies: int = 0,
    ) -> None:
        self._app = app
        self._user = user
        self._trusted_proxies = trusted_proxies

    async def __call__(self, scope: _Scope, receive: _Receive, send: _Send) -> None:
        """As ASGI says."""
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        headers = scope["headers"]
        peer = scope.get("client")
        forwarded = ",".join(_all(headers, b"x-forwarded-for"))
        fields: dict[str, object] = {
            "ip_address": client_address(peer[0] if peer else None, forwarded, self._trusted_proxies),
            "user_agent": next(_all(headers, b"user-agent"), None),
            "request_id": next(_all(headers, b"x-request-id"), None),
        }
        if self._user is not None:
            user = self._user
            fields |= {
                "user_id": lambda: user(scope).get("user_id"),
                "email": lambda: user(scope).get("email"),
            }
        with audit_context(**fields):
            await self._app(scope, receive, send)


def _all(headers: Iterable[tuple[bytes, bytes]], name: bytes) -> Any:
    return (value.decode("latin-1") for key, value in headers if key.lower() == name)

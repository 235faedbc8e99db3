"""Flask: says of each request where it comes from, and who makes it.

    Audit(app, user=lambda: {"user_id": current_user.get_id()})         # Flask-Login's, for instance

``user`` is called when something is first written. Who learns later who it is, calls ``identify(user_id=...)``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import flask

from cdc_audit.client.context import audit_context
from cdc_audit.client.headers import client_address

_OPEN = "_cdc_audit_context"


class Audit:
    """Opens a context before each request and closes it when the request is torn down.

    ``trusted_proxies``: so many of our own proxies add to X-Forwarded-For (not together with Werkzeug's ProxyFix).
    """

    def __init__(
        self,
        app: flask.Flask | None = None,
        *,
        user: Callable[[], dict[str, Any]] | None = None,
        trusted_proxies: int = 0,
    ) -> None:
        self._user = user
        self._trusted_proxies = trusted_proxies
        if app is not None:
            self.init_app(app)

    def init_app(self, app: flask.Flask) -> None:
        """As Flask's extensions do: before the application's own ``before_request`` functions."""
        app.before_request_funcs.setdefault(None, []).insert(0, self._open)
        app.teardown_request(_close)

    def _open(self) -> None:
        request = flask.request
        fields: dict[str, object] = {
            "ip_address": client_address(
                request.remote_addr, request.headers.get("X-Forwarded-For", ""), self._trusted_proxies
            ),
            "user_agent": request.headers.get("User-Agent"),
            "request_id": request.headers.get("X-Request-Id"),
        }
        if self._user is not None:
            user = self._user
            fields |= {"user_id": lambda: user().get("user_id"), "email": lambda: user().get("email")}
        context = audit_context(**fields)
        context.__enter__()
        setattr(flask.g, _OPEN, context)


def _close(_: BaseException | None) -> None:
    context: audit_context | None = flask.g.pop(_OPEN, None)
    if context is not None:
        context.__exit__(None, None, None)

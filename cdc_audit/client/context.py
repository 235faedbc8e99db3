"""Who acts now: a scope in a context variable, so that neither threads nor tasks see each other's."""

from __future__ import annotations

from collections.abc import Mapping
from contextvars import ContextVar, Token
from types import TracebackType
from typing import Self

from cdc_audit.client import payload


class Scope:
    """The fields said in an open ``audit_context``, merged over those around it."""

    __slots__ = ("_fields", "_is_lazy", "_text", "failures", "version")

    def __init__(self, fields: Mapping[str, object]) -> None:
        self.version = 0
        self.failures: dict[str, Exception] = {}
        self._set(fields)

    def _set(self, fields: Mapping[str, object]) -> None:
        self._fields = {name: value for name, value in fields.items() if value is not None}
        self._is_lazy = any(map(callable, self._fields.values()))
        self._text: str | None = None

    @property
    def fields(self) -> Mapping[str, object]:
        """As they were said, functions and all."""
        return self._fields

    def add(self, fields: Mapping[str, object]) -> None:
        """Say more, in every thread and task that shares this scope."""
        self._set({**self._fields, **fields})
        self.version += 1

    def resolved(self) -> dict[str, object]:
        """The fields, with those that are functions replaced by what they return; None leaves a field out.

        What a function raises is kept in ``failures``, and its field named under ``_failed``.
        """
        found: dict[str, object] = {}
        self.failures = {}
        for name, value in self._fields.items():
            try:
                given = value() if callable(value) else value
            except Exception as error:  # an application's function may do anything
                self.failures[name] = error
                continue
            if given is not None:
                found[name] = given
        if self.failures:
            found["_failed"] = list(self.failures)
        return found

    def text(self) -> str:
        """The JSON text to send, "" if there is nothing to say."""
        if self._text is None or self._is_lazy:
            self._text = payload.context_text(self.resolved())
        return self._text


_current: ContextVar[Scope | None] = ContextVar("cdc_audit_context", default=None)
_process: Scope | None = None


class audit_context:  # noqa: N801  (reads as a statement)
    """Everything written inside is done by this user, for this reason: ``with`` or ``async with``.

    ``user_id``, ``email``, ``ip_address`` and ``user_agent`` have columns of their own in the trail, other fields stand under
    ``context``. Fields merge over those of the contexts around it; None takes one out. A value may be a function: it is called
    once in each transaction, when the context is sent, and may use the database.
    """

    __slots__ = ("_fields", "_token")

    def __init__(self, **fields: object) -> None:
        self._fields = fields
        self._token: Token[Scope | None] | None = None

    def __enter__(self) -> Self:
        if self._token is not None:
            raise RuntimeError("an audit_context is entered once; make another one")
        around = current_scope()
        self._token = _current.set(Scope({**around.fields, **self._fields} if around else self._fields))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._token is not None
        _current.reset(self._token)

    async def __aenter__(self) -> Self:
        return self.__enter__()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.__exit__(kind, error, trace)


def identify(**fields: object) -> None:
    """Say more in the innermost open context: who it is that a request's middleware did not know yet.

    Seen at once by all threads and tasks that work inside that context. Raises RuntimeError where none is open: then nobody
    could take it back.
    """
    scope = _current.get()
    if scope is None:
        raise RuntimeError("no audit_context is open here")
    scope.add(fields)


def for_process(**fields: object) -> None:
    """Say what holds for this whole process, around every context: a migration's name, a job's.

    Called without fields: nothing any more.
    """
    global _process  # noqa: PLW0603  (a process has one)
    _process = Scope(fields) if fields else None


def current_scope() -> Scope | None:
    """The innermost open scope, or the process's own."""
    return _current.get() or _process


def current_context() -> dict[str, object]:
    """A copy of the fields that hold here, functions resolved."""
    scope = current_scope()
    return scope.resolved() if scope else {}

"""What a connection's open transaction has been told about who acts, and what it must still be told.

One ``Conversation`` a connection. Knows no driver: who uses it runs the statements and reports the transaction's ends.
"""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass

from cdc_audit.client import statement
from cdc_audit.client.context import Scope, current_scope
from cdc_audit.client.statement import Kind

_log = logging.getLogger("cdc_audit.client")
_ASK_AGAIN_S = 60.0
_NOBODY = "{}"  # said where somebody was named before, and nobody is now


class ContextUnavailableError(RuntimeError):
    """Who acts can't be said here, and ``configure(strict=True)`` asked for this to be an error."""


@dataclass(frozen=True, slots=True)
class Settings:
    """What ``configure`` has set."""

    strict: bool = False


_settings = Settings()


def configure(*, strict: bool = False, functions: tuple[str, ...] = ()) -> None:
    """Settings of this process.

    ``strict``: where the source has no ``cdc_audit.set_context`` for this role, or a context's own function fails, a write raises
    ContextUnavailableError; else it is logged (logger ``cdc_audit.client``), and the write goes ahead without a context.
    ``functions``: names of the database's functions that write, so that a SELECT of them counts as a write.
    """
    global _settings  # noqa: PLW0603  (a process has one)
    _settings = Settings(strict)
    statement.count_as_writing(tuple(functions))


class Conversation:
    """What one connection has said. Not shared between threads at once, as its connection isn't."""

    __slots__ = ("_asked_at", "_ready", "_scope", "_told", "_version", "depth")

    def __init__(self) -> None:
        self.depth = 0  # of transaction blocks, for a driver that doesn't show them
        self._ready = False
        self._asked_at = 0.0
        self.ended()

    def ended(self) -> None:
        """The transaction is over, however it ended: the next one has been told nothing."""
        self._told: str | None = ""  # None: not known any more
        self._scope: Scope | None = None
        self._version = -1

    def doubt(self) -> None:
        """A rollback to a savepoint may have taken along what was said."""
        if self._told != "":
            self._told = None
        self._scope = None
        self._version = -1

    def due(self, text: str, *, in_transaction: bool, is_alone: bool = False) -> str | None:
        """What must be said before this statement, or None.

        ``in_transaction``: whether one is open already; if not, the statement begins one. ``is_alone``: it will be a
        transaction by itself (autocommit). Raises ContextUnavailableError as ``configure`` says.
        """
        if not in_transaction:
            self.ended()
        kind = statement.kind_of(text)
        if kind is Kind.READ:
            return None
        if kind is Kind.BOUND:
            self.ended()
            return None
        if kind is Kind.ROLLBACK_TO:
            self.doubt()
            return None
        if is_alone and kind is Kind.MAYBE:
            return None
        return self.pending()

    def pending(self) -> str | None:
        """What the open transaction hasn't been told yet, or None; also None while the source is known not to listen."""
        scope = current_scope()
        version = scope.version if scope is not None else -1
        if self._told is not None and scope is self._scope and version == self._version:
            return None
        if not self._ready and not self._may_ask():
            return None
        text = scope.text() if scope is not None else ""
        if scope is not None and scope.failures:
            name, error = next(iter(scope.failures.items()))
            _complain(f"the function of a context's field failed: {name}: {type(error).__name__}", error)
        if text == self._told or (not text and self._told == _NOBODY):
            self._remember()
            return None
        return text or _NOBODY

    @property
    def must_ask(self) -> bool:
        """Whether ``statement.PROBE`` is to be run and its answer handed to ``learn`` first."""
        return not self._ready

    def _may_ask(self) -> bool:
        """A no holds for a minute, unless it is to be an error."""
        return _settings.strict or not self._asked_at or time.monotonic() - self._asked_at > _ASK_AGAIN_S

    def learn(self, answer: object) -> bool:
        """What PROBE gave: whether contexts can be sent here. Raises ContextUnavailableError as ``configure`` says."""
        is_first = self._asked_at == 0.0
        self._asked_at = time.monotonic()
        self._ready = answer == "ready"
        if answer == "missing" and (is_first or _settings.strict):
            _complain(
                "this database has no cdc_audit.set_context for this role: cdc-audit source install", None
            )
        return self._ready

    def told(self, text: str) -> None:
        """It has been said in the open transaction."""
        self._told = text
        self._remember()

    def failed(self) -> None:
        """Saying it failed, and with it the transaction: the next one asks first."""
        self._ready = False
        self._asked_at = 0.0
        self.doubt()

    def _remember(self) -> None:
        self._scope = current_scope()
        self._version = self._scope.version if self._scope is not None else -1


def _complain(what: str, cause: Exception | None) -> None:
    if _settings.strict:
        raise ContextUnavailableError(what) from cause
    _log.warning("%s; writing goes on, the trail will not say who did it", what)

"""Who acts, as far as it is known."""

from __future__ import annotations

from enum import StrEnum
from typing import NamedTuple


class Trust(StrEnum):
    """How far a context can be believed."""

    NONE = "none"  # the application said nothing
    ASSERTED = "asserted"  # any role that can connect can say this
    SIGNED = "signed"  # cdc_audit.set_context signed it in this very transaction
    FORGED = "forged"  # its signature is wrong, or it was made for another transaction
    INVALID = "invalid"  # it can't be read; what could be kept of it stands in ``rest``


class Context(NamedTuple):
    """A context, ready for the columns of audit_logs; "" stands for null.

    ``rest`` is the text that jsonb prints of everything without a column of its own, or "".
    """

    trust: Trust
    user_id: str = ""
    user_email: str = ""
    ip_address: str = ""
    user_agent: str = ""
    rest: str = ""
    db_user: str = ""
    application_name: str = ""

    @property
    def is_missing(self) -> bool:
        """Whether nobody said who acts: there is no context, or an empty one."""
        if self.trust is Trust.NONE:
            return True
        return self.trust in (Trust.SIGNED, Trust.ASSERTED) and not any(self[1:6])


NO_CONTEXT = Context(Trust.NONE)


class ContextKey(NamedTuple):
    """A signing key as HMAC-SHA256 needs it (RFC 2104): the key's two pads of 64 bytes."""

    key_id: str
    inner_pad: bytes
    outer_pad: bytes

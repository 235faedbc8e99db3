"""What a request's headers say about where it comes from. Pure."""

from __future__ import annotations


def client_address(peer: str | None, forwarded: str, trusted_proxies: int) -> str | None:
    """The address of who asks: the peer's own, or with proxies of ours before us what the first of them saw.

    ``forwarded`` is X-Forwarded-For, to which each proxy adds, at the end, whom it heard: what stands before the entries of our
    own proxies anybody may have sent.
    """
    seen = [entry.strip() for entry in forwarded.split(",") if entry.strip()]
    if trusted_proxies > 0 and len(seen) >= trusted_proxies:
        return seen[-trusted_proxies]
    return peer or None

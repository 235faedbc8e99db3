"""The same Django site, asynchronous: middleware, views and ORM, eight tasks of requests."""

from __future__ import annotations

import asyncio

from tests.acceptance.clients.django_site import main_async

if __name__ == "__main__":
    asyncio.run(main_async())

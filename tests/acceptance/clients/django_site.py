"""A Django site: middleware, views with and without ``atomic``, the ORM, Django's own pool, eight threads of requests.

Who is logged in is what a stand-in for AuthenticationMiddleware takes from a header, lazily, as the real one does.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import django
from asgiref.sync import sync_to_async
from django.conf import settings
from django.db import connection, connections, models, transaction
from django.http import HttpRequest, HttpResponse
from django.test import AsyncClient, Client
from django.urls import path
from django.utils.functional import SimpleLazyObject
from psycopg.conninfo import conninfo_to_dict

from cdc_audit.client import audit_context
from tests.acceptance.clients.crowd import DSN, UndoneError, other, work_in_tasks, work_in_threads

APP = "django_async_site" if "async" in sys.argv[0] else "django_site"
given = conninfo_to_dict(DSN)
settings.configure(
    ALLOWED_HOSTS=["*"],
    DATABASES={
        "default": {
            "ENGINE": "django.db.backends.postgresql",
            "NAME": given["dbname"],
            "USER": given["user"],
            "HOST": given["host"],
            "PORT": given["port"],
            "OPTIONS": {"pool": {"min_size": 3, "max_size": 3}},
        }
    },
    INSTALLED_APPS=["cdc_audit.client.django.AuditConfig"],
    MIDDLEWARE=["cdc_audit.client.django.AuditMiddleware", f"{__name__}.Login"],
    CDC_AUDIT={"TRUSTED_PROXIES": 1},
    ROOT_URLCONF=__name__,
    SECRET_KEY="not a secret",
)
django.setup()


class Order(models.Model):  # type: ignore[misc]
    app = models.TextField(default=APP)
    who = models.TextField()
    changes = models.IntegerField(default=1)

    class Meta:
        app_label = "shop"
        db_table = "orders"
        managed = False


class User:
    is_authenticated = True

    def __init__(self, name: str) -> None:
        self.pk = name
        self.email = f"{name}@example.org"


class Login:
    """As AuthenticationMiddleware: who it is is looked up when somebody asks."""

    sync_capable = async_capable = True

    def __new__(cls, get_response: Callable[[HttpRequest], Any]) -> Any:
        def enter(request: HttpRequest) -> Any:
            request.user = SimpleLazyObject(lambda: User(request.headers["X-User"]))
            return get_response(request)

        if asyncio.iscoroutinefunction(get_response):

            async def enter_async(request: HttpRequest) -> Any:
                return await enter(request)

            return enter_async
        return enter


def order(request: HttpRequest, step: str) -> HttpResponse:
    """In autocommit mode, as views are unless they ask for more."""
    user = request.headers["X-User"]
    if step == "alone":
        Order.objects.create(who=user)
        return HttpResponse()
    if step == "retry":
        with suppress(UndoneError), transaction.atomic():
            Order.objects.create(who="nobody")
            raise UndoneError
    if step == "read":
        Order.objects.filter(id=1).count()
        return HttpResponse()
    with transaction.atomic():
        if step == "savepoint":
            with suppress(UndoneError), transaction.atomic():
                Order.objects.create(who="nobody")
                raise UndoneError
        if step == "many":
            Order.objects.bulk_create([Order(who=user) for _ in range(3)])
        if step == "insert":
            Order.objects.filter(id=1).count()
        mine = Order.objects.create(who=user)
        if step == "insert_and_update":
            mine.changes += 1
            mine.save()
        if step == "two_users":
            with audit_context(user_id=other(user)):
                Order.objects.create(who=other(user))
    return HttpResponse()


async def order_async(request: HttpRequest, step: str) -> HttpResponse:
    """The asynchronous ORM where there is one, else the same in a thread."""
    if step in ("alone", "insert_and_update"):
        mine = await Order.objects.acreate(who=request.headers["X-User"])
        if step == "insert_and_update":
            mine.changes += 1
            await mine.asave()
        return HttpResponse()
    return await sync_to_async(order)(request, step)


urlpatterns = [path("order/<step>", order), path("async/<step>", order_async)]


def main() -> None:
    client = Client(HTTP_USER_AGENT="crowd")

    def request(user: str, step: str) -> None:
        answer = client.post(f"/order/{step}", headers={"X-User": user, "X-Forwarded-For": "10.0.0.9"})
        assert answer.status_code == 200
        connection.close()  # as the end of a request does: back into the pool

    work_in_threads(request)
    connections["default"].close_pool()


async def main_async() -> None:
    client = AsyncClient()

    async def request(user: str, step: str) -> None:
        answer = await client.post(f"/async/{step}", headers={"X-User": user})
        assert answer.status_code == 200

    await work_in_tasks(request)


if __name__ == "__main__":
    main()

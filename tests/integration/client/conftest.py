"""A source with our functions and a table, and a look into its stream."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator

import pytest
from psycopg import Connection

from cdc_audit.client import configure
from cdc_audit.source import install
from tests.integration.source.conftest import connect, database, look, make_role, source  # noqa: F401
from tests.integration.source.stream_look import Look

_SENT = re.compile(r"message: .*?content:v1:\w+:\w+:(.*)", re.DOTALL)


@pytest.fixture
def shop(source: Connection) -> Iterator[Connection]:  # noqa: F811
    """The superuser's connection to a source with our functions and table t."""
    source.execute("create table public.t (id int generated always as identity primary key, v text)")
    install.install(source)
    yield source
    configure()


def transactions(look: Look) -> list[list[object]]:  # noqa: F811
    """What each committed transaction said and wrote, in order: a context's fields, or the change's first words."""
    found: list[list[object]] = []
    for line in look.lines():
        sent = _SENT.fullmatch(line)
        if line.startswith("BEGIN"):
            found.append([])
        elif sent:
            found[-1].append(json.loads(sent[1]).get("context"))
        elif line.startswith("table public.t:"):
            found[-1].append(line.split()[2].rstrip(":"))
    return [events for events in found if events]

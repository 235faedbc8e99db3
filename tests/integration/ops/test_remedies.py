"""For each precondition broken on purpose, doctor names it, and what it prints mends it when it is done word by word."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.integration.ops.patient import Patient, admit
from tests.integration.ops.preconditions import PRECONDITIONS, Precondition
from tests.integration.ops.remedies import take
from tests.support.databases import new_databases
from tests.support.servers import Server, new_server

_HEADER = ("precondition", "check", "before", "after", "remedy")


@pytest.fixture(scope="module")
def own_servers() -> Iterator[tuple[Server, Server]]:
    """Two servers that these tests reconfigure and restart."""
    pair = new_server("source"), new_server("audit")
    try:
        for server in pair:
            server.start()
        yield pair
    finally:
        for server in pair:
            server.remove()


@pytest.fixture
def patient_of_its_own(own_servers: tuple[Server, Server]) -> Iterator[Patient]:
    databases = new_databases(*own_servers)
    admitted = admit(databases)
    yield admitted
    admitted.discharge()
    databases.drop()


def test_there_are_at_least_25() -> None:
    assert len(PRECONDITIONS) >= 25


@pytest.mark.parametrize("precondition", PRECONDITIONS, ids=lambda one: one.what.replace(" ", "_"))
def test_a_broken_precondition_is_named_and_its_remedy_mends_it(
    precondition: Precondition,
    request: pytest.FixtureRequest,
    tmp_path: Path,
    record_property: Callable[[str, object], None],
) -> None:
    patient = request.getfixturevalue("patient_of_its_own" if precondition.own_servers else "patient")
    known = patient.on_source(f"select 1 from pg_settings where name = '{precondition.setting}'")
    if precondition.setting and not known:
        pytest.skip(f"this minor of PostgreSQL has no {precondition.setting}")
    precondition.broken(patient, tmp_path)
    before = patient.examine()[precondition.check]
    assert before.status == precondition.status, before
    done = take(before, patient)
    assert done, f"nothing in it can be done: {before.remedy}"
    after = patient.examine()[precondition.check]
    assert after.status == "ok", after
    remedy = "; ".join(line.rstrip(";") for line in done).replace(str(tmp_path), "")
    row = (precondition.what, precondition.check, before.status, after.status, remedy)
    record_property("table", ("Broken preconditions, and what doctor says mends them", _HEADER, row))

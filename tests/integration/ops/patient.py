"""``Patient``: two databases set up as ``init`` would, with roles of least rights, for doctor to look at."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from cdc_audit.config import Config
from cdc_audit.ops.check import Result
from cdc_audit.ops.doctor import diagnose
from cdc_audit.postgres import connect
from cdc_audit.schema.migrate import migrate
from cdc_audit.sink import ledger
from cdc_audit.source import facts, install, slot
from tests.support.databases import Databases


@dataclass
class Patient:
    """The databases, the two roles, and what of the configuration a test has changed."""

    databases: Databases
    reader: str
    writer: str
    changes: dict[str, dict[str, Any]] = field(default_factory=dict)

    def on_source(self, statement: str) -> list[tuple[Any, ...]]:
        return self.databases.source.execute(statement, dbname=self.databases.source_name)

    def on_audit(self, statement: str) -> list[tuple[Any, ...]]:
        return self.databases.audit.execute(statement, dbname=self.databases.audit_name)

    def configure(self, section: str, **values: Any) -> None:
        self.changes.setdefault(section, {}).update(values)

    def config(self) -> Config:
        source = {
            "dsn": self.databases.source.dsn(self.databases.source_name, self.reader),
            "slot": self.databases.slot,
        }
        audit = {"dsn": self.databases.audit.dsn(self.databases.audit_name, self.writer)}
        given: dict[str, dict[str, Any]] = {"source": source, "audit": audit}
        for section, values in self.changes.items():
            given.setdefault(section, {}).update(values)
        return Config.model_validate(given)

    def examine(self, clock: Callable[[], float] | None = None) -> dict[str, Result]:
        """All results by name."""
        found = list(diagnose(self.config(), clock=clock) if clock else diagnose(self.config()))
        assert len({result.name for result in found}) == len(found)
        return {result.name: result for result in found}

    def discharge(self) -> None:
        """Drop the roles and what they were given."""
        for server, database, role in (
            (self.databases.source, self.databases.source_name, self.reader),
            (self.databases.audit, self.databases.audit_name, self.writer),
        ):
            if server.is_running:
                server.execute(f'drop owned by "{role}"', dbname=database)
                server.execute(f'drop role "{role}"')


def admit(databases: Databases) -> Patient:
    """A healthy pair: schema, functions, slot, genesis block, one table that can be captured in full."""
    patient = Patient(databases, f"reader_{databases.source_name}", f"writer_{databases.audit_name}")
    patient.on_source(f'create role "{patient.reader}" login replication')
    patient.on_audit(f'create role "{patient.writer}" login')
    patient.on_source("create table public.users (id int primary key, name text)")
    patient.on_source("alter table public.users replica identity full")
    with connect(databases.audit_dsn, side="audit") as audit:
        migrate(audit, "audit", patient.writer)
        with connect(databases.source_dsn, side="source") as source:
            install.install(source, daemon_role=patient.reader)
            install.revoke_emit(source)
            made = slot.create(source, databases.slot, "wal2json")
            ledger.genesis(
                audit,
                "audit",
                system_identifier=str(facts.read(source).system_identifier),
                timeline=1,
                slot=databases.slot,
                lsn=made.confirmed_flush_lsn,
                detail={},
            )
    return patient

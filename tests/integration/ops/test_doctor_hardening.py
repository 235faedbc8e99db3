"""Doctor on a source that is hardened, was, or never was."""

from __future__ import annotations

import pytest

from cdc_audit.postgres import connect
from cdc_audit.source import install
from tests.integration.ops.patient import Patient


def test_a_source_that_is_not_hardened_is_no_warning_but_a_hint(healthy: Patient) -> None:
    found = healthy.examine()["ddl_event_triggers"]
    assert (found.status, found.remedy) == ("info", "cdc-audit source install --harden")


@pytest.mark.parametrize(
    "harm", ["alter event trigger cdc_audit_drop disable", "drop event trigger cdc_audit_drop"]
)
def test_event_triggers_that_are_gone_or_disabled_are_a_warning(patient: Patient, harm: str) -> None:
    with connect(patient.databases.source_dsn, side="source") as source:
        install.harden(source)
    assert patient.examine()["ddl_event_triggers"].status == "ok"
    patient.on_source(harm)
    found = patient.examine()["ddl_event_triggers"]
    assert found.status == "warn"
    assert "cdc_audit_drop" in found.message
    assert found.remedy == "cdc-audit source install --harden"

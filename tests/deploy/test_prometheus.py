"""The alert rules and the dashboard: checked by promtool, and by a real Prometheus that scrapes a real daemon."""

from __future__ import annotations

import http.server
import json
import re
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
import yaml

from tests.deploy.plot import drawn
from tests.deploy.units import textfile
from tests.support.daemon import DaemonProcess, cdc_audit, initialised, until
from tests.support.databases import Databases, new_databases
from tests.support.prometheus import DEPLOY, Prometheus, program
from tests.support.servers import Server

PROMETHEUS = DEPLOY / "prometheus"
RULES = [
    rule
    for group in yaml.safe_load((PROMETHEUS / "rules.yml").read_text())["groups"]
    for rule in group["rules"]
]
PICTURED_SECONDS = 12.0
DASHBOARD = json.loads((DEPLOY / "grafana/cdc-audit.json").read_text())


def promtool(*arguments: str) -> str:
    """What promtool says; it must be content."""
    done = subprocess.run(
        [program("promtool"), *arguments], cwd=PROMETHEUS, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_promtool_has_no_complaint_about_the_rules_and_the_configuration() -> None:
    assert f"{len(RULES)} rules found" in promtool("check", "rules", "rules.yml")
    promtool("check", "config", "prometheus.yml")


def test_every_alert_fires_when_it_should_and_only_then() -> None:
    promtool("test", "rules", "rules_test.yml")
    tests = yaml.safe_load((PROMETHEUS / "rules_test.yml").read_text())["tests"]
    cases = [case for test in tests for case in test["alert_rule_test"]]
    assert {case["alertname"] for case in cases if case["exp_alerts"]} == {rule["alert"] for rule in RULES}
    assert {case["alertname"] for case in cases if not case["exp_alerts"]} == {
        rule["alert"] for rule in RULES
    }


@pytest.mark.parametrize("rule", RULES, ids=[rule["alert"] for rule in RULES])
def test_every_alert_says_how_bad_it_is_and_has_its_section_in_the_runbook(rule: dict[str, Any]) -> None:
    assert rule["labels"]["severity"] in {"critical", "warning"}
    assert set(rule["annotations"]) == {"summary", "description", "runbook_url"}
    file, _, anchor = rule["annotations"]["runbook_url"].partition("#")
    assert file == "deploy/README.md"
    assert anchor == rule["alert"].lower()
    section = re.search(
        rf"^### {rule['alert']}\n(.*?)(?=^#|\Z)", (DEPLOY / "README.md").read_text(), re.MULTILINE | re.DOTALL
    )
    assert section is not None, f"deploy/README.md has no section ### {rule['alert']}"
    for part in ("**Meaning.**", "**Look.**", "**Do.**"):
        assert part in section[1], f"{rule['alert']}: {part} is missing"


@pytest.fixture
def verdict(tmp_path: Path) -> Iterator[str]:
    """host:port of what stands for a node-exporter that serves the textfile of cdc-audit-verify@.service."""
    text = textfile("shop", "0", tmp_path).encode()

    class Node(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(text)

        def log_message(self, *args: object) -> None:
            """Nothing."""

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Node) as server:
        threading.Thread(target=server.serve_forever, args=(0.1,), daemon=True).start()
        yield f"127.0.0.1:{server.server_address[1]}"
        server.shutdown()


@pytest.fixture
def shop(databases: Databases, tmp_path: Path) -> dict[str, str]:
    """The environment of a daemon that has something to say of everything."""
    databases.source.execute(
        "create table t (id int primary key, password text); create table loose (id int)",
        dbname=databases.source_name,
    )
    env = databases.environment(
        BATCH_FLUSH_INTERVAL="0",
        LEDGER_HEARTBEAT_INTERVAL="1",
        LEDGER_ANCHORS=f"file:{tmp_path / 'anchors.jsonl'}",
    )
    initialised(env)
    hardened = cdc_audit("source", "install", "--harden", env=env)
    assert hardened.returncode == 0, hardened.stderr
    return env


def work(databases: Databases, first: int) -> None:
    """A few transactions: one with a context, one without, one with a forged one, suppressed rows, DDL that weakens the trail."""
    with psycopg.connect(databases.source_dsn) as source:
        source.execute("""select cdc_audit.set_context('{"user_id": "u1"}')""")
        source.execute("insert into t values (%s, 'secret')", (first,))
        source.commit()
        source.execute("update t set password = 'other' where id = %s", (first,))
        source.execute("insert into loose values (1)")
        source.execute("delete from loose")
        source.commit()
        forged = f"v1:none:{'00' * 32}:{{}}"
        source.execute("select pg_logical_emit_message(true, 'cdc_audit.context', %s)", (forged,))
        source.execute("insert into t values (%s, 'secret')", (-first,))
        source.execute("alter table t replica identity full")
        source.execute("alter table t replica identity default")


def asked(expression: str) -> str:
    """A query as Grafana sends it when all daemons are chosen."""
    return expression.replace("$__rate_interval", "1m").replace("$instance", ".*")


def queries() -> list[tuple[str, str]]:
    """Title and query of each target of the dashboard."""
    return [
        (panel["title"], asked(target["expr"]))
        for panel in DASHBOARD["panels"]
        for target in panel.get("targets", [])
    ]


def test_every_query_of_the_dashboard_has_an_answer_and_a_picture_of_them_can_be_looked_at(
    shop: dict[str, str], databases: Databases, verdict: str, tmp_path: Path
) -> None:
    began = time.time()
    with DaemonProcess(shop, tmp_path / "log") as daemon:
        daemon.until_ready()
        targets = {"cdc-audit": [f"127.0.0.1:{daemon.port}"], "node": [verdict]}
        with Prometheus(tmp_path / "prometheus", targets) as prometheus:
            unanswered = queries()
            round_ = 0

            def all_answered() -> bool:
                nonlocal round_, unanswered
                round_ += 1
                work(databases, round_)
                unanswered = [one for one in unanswered if not prometheus.query(one[1])]
                return not unanswered

            try:
                until(all_answered, "every query has an answer", timeout=20)
            except TimeoutError:
                assert not unanswered, "no data"

            def pictured() -> bool:
                nonlocal round_
                round_ += 1
                work(databases, round_)
                picture = drawn(DASHBOARD, lambda expression: prometheus.history(asked(expression), began))
                (tmp_path / "dashboard.svg").write_text(picture)
                return "No data" not in picture and time.time() > began + PICTURED_SECONDS

            until(pictured, "every panel shows something", timeout=30)


def test_the_dashboards_variables_and_panels_are_sound() -> None:
    ids = [panel["id"] for panel in DASHBOARD["panels"]]
    assert len(ids) == len(set(ids))
    used = set(re.findall(r"\$\{?([a-z_]+)", json.dumps(DASHBOARD["panels"]))) - {"__rate_interval"}
    assert used == {variable["name"] for variable in DASHBOARD["templating"]["list"]}
    assert all(
        panel["gridPos"]["x"] + panel["gridPos"]["w"] <= 24 and (panel["type"] == "row" or panel["targets"])
        for panel in DASHBOARD["panels"]
    )


def test_an_alert_fires_when_the_audit_database_stops_and_not_for_the_standby(
    private_cluster: Callable[..., Server], source_cluster: Server, tmp_path: Path
) -> None:
    audit = private_cluster("audit")
    databases = new_databases(source_cluster, audit)
    env = databases.environment(BATCH_FLUSH_INTERVAL="0", LEDGER_HEARTBEAT_INTERVAL="1")
    initialised(env)
    try:
        with DaemonProcess(env, tmp_path / "log") as daemon:
            daemon.until_ready()
            with DaemonProcess(env, tmp_path / "standby.log") as standby:
                until(lambda: "standby" in standby.get("/readyz")[1], "the second daemon waits")
                addresses = [f"127.0.0.1:{one.port}" for one in (daemon, standby)]
                with Prometheus(tmp_path / "prometheus", {"cdc-audit": addresses}) as prometheus:
                    until(lambda: len(prometheus.query("cdc_audit_ready")) == 2, "both are scraped")
                    assert prometheus.query("cdc_audit_ready == 0"), "a standby is not ready"
                    until(lambda: not prometheus.firing(), "no alert fires")
                    audit.stop()
                    databases.source.execute("create table t ()", dbname=databases.source_name)
                    databases.source.execute("insert into t default values", dbname=databases.source_name)
                    wanted = ("CdcAuditNotReady", addresses[0])
                    until(lambda: wanted in prometheus.firing(), "the alert fires", timeout=60)
                    assert ("CdcAuditDown", addresses[0]) not in prometheus.firing(), "the process is well"
                    audit.start()
                    until(
                        lambda: "CdcAuditNotReady" not in {name for name, _ in prometheus.firing()},
                        "the alert ends by itself",
                        timeout=60,
                    )
    finally:
        databases.drop()

"""The daemon's alerts and ``cdc-audit suspicious`` find the same in one workload; no webhook, however bad, touches the trail."""

from __future__ import annotations

import json
import signal
import time
from collections import deque
from datetime import UTC, datetime, timedelta
from pathlib import Path
from random import Random

import psycopg

from tests.support.anchor_endpoint import Endpoint
from tests.support.daemon import DaemonProcess, cdc_audit, initialised, until
from tests.support.databases import Databases

SECONDS = 6.0
KINDS = ("bulk", "deletions", "reads", "new_address", "no_context", "ddl")
EVERY_DAY = 'days = ["mon", "tue", "wed", "thu", "fri", "sat", "sun"]'
MAKE = """
create schema shop;
create table shop.orders (id int primary key, v int);
create table shop.items (id bigint generated always as identity primary key, v int);
alter table shop.orders replica identity full;
alter table shop.items replica identity full;
insert into shop.orders select g, 0 from generate_series(1, 50) g;
"""


def configured(folder: Path, databases: Databases, url: str, *more: str) -> dict[str, str]:
    """The environment of a daemon with a rule of each kind, of short windows, which names users."""
    now = datetime.now(UTC)
    later = now + timedelta(hours=2) if now.hour < 20 else now - timedelta(hours=3)
    out = f'hours = "{later:%H}:00-{later:%H}:59"'
    rules = [f'kind = "{kind}"\nthreshold = {3 * (kind == "bulk")}\nwindow = 1' for kind in KINDS]
    rules += [
        f'kind = "outside_hours"\nwindow = 1\n{out}\nignore_users = ["u1"]',
        f'kind = "outside_hours"\nname = "never"\nhours = "00:00-24:00"\n{EVERY_DAY}',
        'kind = "bulk"\nname = "few"\ntable = "shop.it*"\nthreshold = 3\nwindow = 2',
    ]
    text = f'[suspicious]\nwebhook = "{url}"\nname_users = true\n' + "\n".join(more) + "\n"
    text += "".join(f"[[suspicious.rules]]\n{one}\n" for one in rules)
    (folder / "cdc-audit.toml").write_text(text)
    return databases.environment(
        BATCH_FLUSH_INTERVAL="0.2", CONFIG=str(folder / "cdc-audit.toml"), SUSPICIOUS_WEBHOOK=url
    )


def step(source: psycopg.Connection, dice: Random, kind: int) -> None:
    """One transaction of somebody; of a kind from 0 to 5."""
    user = f"u{dice.randrange(4)}"
    if dice.random() < 0.8:
        said = {"user_id": user, "ip_address": f"10.0.0.{dice.randrange(3)}"}
        source.execute("select cdc_audit.set_context(%s)", (json.dumps(said),))
    match kind:
        case 0:
            source.execute("update shop.orders set v = v + 1 where id <= %s", (dice.randrange(5, 30),))
        case 1:
            source.execute(
                "insert into shop.items (v) select g from generate_series(1, %s) g", (dice.randrange(3, 8),)
            )
        case 2:
            source.execute("delete from shop.items where id %% 3 = %s", (dice.randrange(3),))
        case 3:
            for _ in range(dice.randrange(1, 9)):
                source.execute("select cdc_audit.log_event('READ', 'shop.orders', '1', null)")
        case 4:
            source.execute("truncate shop.items")
        case 5:
            source.execute(
                "comment on table shop.items is 'x'; alter table shop.items alter v set statistics 10"
            )
    source.commit()


def test_the_daemon_and_the_command_find_the_same(databases: Databases, tmp_path: Path) -> None:
    databases.source.execute(MAKE, dbname=databases.source_name)
    with Endpoint() as endpoint:
        env = configured(tmp_path, databases, endpoint.url)
        initialised(env)
        done = cdc_audit("source", "install", "--harden", env=env)
        assert done.returncode == 0, done.stderr
        with (
            DaemonProcess(env, tmp_path / "log") as daemon,
            psycopg.connect(databases.source_dsn) as source,
        ):
            daemon.until_ready()
            dice, begun = Random(8), time.monotonic()
            kinds = deque([1, 2, 3, 5, 0])  # each at least once
            while time.monotonic() - begun < SECONDS or kinds:
                step(source, dice, kinds.popleft() if kinds else dice.randrange(6))
                source.execute("select pg_sleep(%s)", (dice.choice((0, 0, 0.05, 0.4)),))
                source.rollback()
            until(lambda: daemon.metric("replication_lag_bytes") == 0, "all of it is stored")
            assert daemon.stop() == 0
            log = daemon.log_text()
        told = [json.loads(line) for line in endpoint.lines]
    done = cdc_audit("suspicious", "--json", "--since", "1h", env=env)
    assert done.returncode == 0, done.stderr
    found = [json.loads(line) for line in done.stdout.splitlines()]
    alerts = {
        (a["rule"], a["user"], a["address"], a["table"], a["action"], a["at"].replace(" ", "T") + "Z")
        for a in told
    }
    runs = {
        (
            f["rule"],
            f["user"] or "",
            f["address"] or "",
            f"{f['schema_name']}.{f['table_name']}" if f["table_name"] else "",
            f["action"] or "",
            f["first"],
        )
        for f in found
    }
    assert alerts == runs
    assert len(told) == len(found) == len(runs)
    assert {rule for rule, *_ in runs} == {*KINDS, "outside_hours", "few"}
    assert "u1" not in {user for rule, user, *_ in runs if rule == "outside_hours"}
    assert '"event": "suspicious"' in log.replace('":"', '": "')
    one = cdc_audit("suspicious", "--rule", "few", "--since", "1h", env=env)
    assert one.stdout.splitlines()[0].split()[:3] == ["rule", "user", "action"]
    assert all(line.startswith("few ") for line in one.stdout.splitlines()[1:])


def test_a_webhook_that_answers_nothing_delays_neither_the_trail_nor_the_stop(
    databases: Databases, tmp_path: Path
) -> None:
    databases.source.execute(MAKE, dbname=databases.source_name)
    with Endpoint() as endpoint:
        endpoint.stall = True
        env = configured(tmp_path, databases, endpoint.url)
        initialised(env)
        with (
            DaemonProcess(env, tmp_path / "log") as daemon,
            psycopg.connect(databases.source_dsn, autocommit=True) as source,
        ):
            daemon.until_ready()
            for number in range(20):
                source.execute("update shop.orders set v = %s", (number,))
            until(lambda: daemon.metric("rows_total", action="UPDATE") == 1000, "all rows are stored", 10)
            until(lambda: endpoint.requests > 0, "the endpoint was asked")
            assert daemon.metric("suspicious_total", rule="bulk") >= 1
            assert daemon.metric("suspicious_total", rule="never") == 0
            begun = time.monotonic()
            assert daemon.stop() == 0
            assert time.monotonic() - begun < 10
            assert daemon.events("webhook_failed")[0]["reason"] == "not sent before the stop"


def test_sighup_takes_other_rules_and_another_webhook(databases: Databases, tmp_path: Path) -> None:
    databases.source.execute(MAKE, dbname=databases.source_name)
    file = tmp_path / "cdc-audit.toml"
    file.write_text("[log]\nlevel = 'info'\n")  # nothing is suspicious
    env = databases.environment(BATCH_FLUSH_INTERVAL="0", CONFIG=str(file))
    initialised(env)
    with (
        Endpoint() as endpoint,
        DaemonProcess(env, tmp_path / "log") as daemon,
        psycopg.connect(databases.source_dsn, autocommit=True) as source,
    ):
        daemon.until_ready()
        source.execute("update shop.orders set v = 1")
        until(lambda: daemon.metric("rows_total", action="UPDATE") == 50, "what nobody minds is stored")

        def take(name: str) -> None:
            told, reloads = len(endpoint.lines), len(daemon.events("reloaded"))
            file.write_text(
                f"[suspicious]\nwebhook = '{endpoint.url}'\n"
                f"[[suspicious.rules]]\nkind = 'bulk'\nname = '{name}'\nthreshold = 40\n"
            )
            daemon.signal(signal.SIGHUP)
            until(lambda: len(daemon.events("reloaded")) > reloads, "it says that it has reloaded")
            assert daemon.metric("suspicious_total", rule=name) == 0
            source.execute("update shop.orders set v = v + 1")
            until(lambda: len(endpoint.lines) > told, "the webhook is told")
            assert daemon.metric("suspicious_total", rule=name) == 1
            assert daemon.events("suspicious")[-1]["rule"] == name

        take("many")
        take("others")
        assert daemon.metric("rows_total", action="UPDATE") == 150
        assert daemon.stop() == 0
    assert [json.loads(line)["rule"] for line in endpoint.lines] == ["many", "others"]

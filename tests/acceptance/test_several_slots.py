"""Tables of one database, shared out over two slots with their daemons and ledgers: the view over both is the whole."""

from __future__ import annotations

import itertools
from pathlib import Path

import psycopg

from tests.support.command_line import commands, examples
from tests.support.comparison import Found, Leaf, Noted, Skeleton, compare_transactions
from tests.support.daemon import DaemonProcess, cdc_audit, initialised
from tests.support.databases import Databases
from tests.support.oracle import Oracle, found_in, wait_for
from tests.support.workload import SCHEMAS, Workload

FIRST = ("things", "pairs", "readings", "readings_north", "readings_south", "readings_rest", "mark")
NAMES = ",".join(f"app.{name}" for name in FIRST)


def is_of_first(leaf: Leaf) -> bool:
    return leaf[0] == "app" and leaf[1] in FIRST


def share(
    noted: dict[int, list[Noted]], skeleton: Skeleton, *, first: bool
) -> tuple[dict[int, list[Noted]], Skeleton]:
    """What one of the slots should have."""
    rows = {
        xid: [one for one in some if is_of_first(one.content.leaf) == first] for xid, some in noted.items()
    }
    steps = {
        xid: [step for step in some if is_of_first(step[1]) == first] for xid, some in skeleton.steps.items()
    }
    return {xid: some for xid, some in rows.items() if some}, skeleton._replace(steps=steps)


def numbered(found: dict[int, list[Found]]) -> dict[int, list[Found]]:
    """The view's rows with ids as if they stood in one ledger, in the order of the commits' positions."""
    ids = itertools.count(1)
    order = sorted(found, key=lambda xid: found[xid][0].commit_lsn)
    return {xid: [one._replace(id=next(ids)) for one in found[xid]] for xid in order}


def test_the_view_over_two_slots_of_one_workload_equals_what_triggers_noted(
    databases: Databases, tmp_path: Path
) -> None:
    envs = {
        schema: databases.environment(
            SOURCE_SLOT=f"{databases.slot}_{schema}",
            AUDIT_SCHEMA=schema,
            BATCH_FLUSH_INTERVAL="0.05",
            **tables,
        )
        for schema, tables in {
            "audit_1": {"SOURCE_TABLES": NAMES},
            "audit_2": {"SOURCE_EXCLUDE": f"oracle.*,{NAMES}"},
        }.items()
    }
    Workload.install(databases.source_dsn)
    for env in envs.values():
        initialised(env)
    oracle = Oracle.install(databases.source_dsn, SCHEMAS)
    (example,) = examples(dict(commands())[("schema", "view")])
    made = cdc_audit(*example, env=envs["audit_1"])
    assert made.stdout == "made audit_all.audit_logs over audit_1, audit_2\n", made.stderr
    with (
        DaemonProcess(envs["audit_1"], tmp_path / "one") as one,
        DaemonProcess(envs["audit_2"], tmp_path / "two") as two,
    ):
        one.until_ready()
        two.until_ready()
        Workload(databases.source_dsn, seed=8, transactions=600).run()
        with psycopg.connect(databases.source_dsn) as source:
            source.execute("insert into app.mark default values")
            source.execute("insert into app.customers values ('the last', 'one')")
            (last,) = source.execute("select pg_current_xact_id()::text::bigint").fetchone() or (0,)
        for schema in envs:
            wait_for(databases.audit_dsn, last, schema=schema)
        assert one.stop() == 0 and two.stop() == 0

    noted, skeleton = oracle.evidence()
    for number, schema in enumerate(envs):
        part = share(noted, skeleton, first=not number)
        difference = compare_transactions(part[0], found_in(databases.audit_dsn, schema), part[1])
        assert difference.is_none and difference.rows > 600, f"{schema}: {difference}"
    whole = compare_transactions(noted, numbered(found_in(databases.audit_dsn, "audit_all")), skeleton)
    print(whole)
    assert not (whole.lost or whole.duplicated or whole.wrong or whole.misattributed), whole

    ask = "select xid from audit_all.audit_logs group by xid, commit_lsn {} order by commit_lsn"
    order = [xid for (xid,) in databases.audit.execute(ask.format(""), dbname=databases.audit_name)]
    assert order == [xid for xid in skeleton.order if xid in noted], (
        "a transaction is one xid at one position"
    )
    both = databases.audit.execute(
        ask.format("having count(distinct ledger) = 2"), dbname=databases.audit_name
    )
    spanning = {
        xid for xid, rows in noted.items() if len({is_of_first(row.content.leaf) for row in rows}) == 2
    }
    assert {xid for (xid,) in both} == spanning and len(spanning) > 50
    for env in envs.values():
        assert '"findings":[]' in cdc_audit("verify", "--json", env=env).stdout


def test_a_view_is_made_over_trails_of_one_source_only_and_replaces_nothing_else(
    databases: Databases,
) -> None:
    env = databases.environment()
    initialised(env)

    def refused(*arguments: str) -> str:
        done = cdc_audit("schema", "view", *arguments, env=env)
        assert done.returncode != 0, done.stdout
        return f"{done.returncode} {done.stderr}"

    assert "78 " in refused("all", "audit", "nowhere") and "no trail in schema nowhere" in refused(
        "all", "nowhere"
    )
    assert refused("audit", "audit").startswith("2 ") and refused("all", "audit", "audit").startswith("2 ")
    databases.audit.execute("create schema mine; create table mine.t ()", dbname=databases.audit_name)
    assert "schema mine holds something else" in refused("mine", "audit")
    for _ in range(2):
        assert cdc_audit("schema", "view", "whole", "audit", env=env).returncode == 0
    owner, may_read = databases.audit.execute(
        "select relowner::regrole::text, has_table_privilege('audit_admin', oid, 'select') from pg_class"
        " where oid = 'whole.audit_logs'::regclass",
        dbname=databases.audit_name,
    )[0]
    assert (owner, may_read) == ("audit_owner", True)

"""Months into archives and out of the audit database, on a real server: nothing lost, nothing doubled, nothing unexplained."""

from __future__ import annotations

import asyncio
import json
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from random import Random
from typing import Any

import psycopg
import pytest
from botocore.exceptions import ClientError
from psycopg import sql
from pyarrow import dataset, parquet

from cdc_audit import failpoint, postgres
from cdc_audit.config import Redact, RedactRule
from cdc_audit.model.context import Context, Trust
from cdc_audit.model.retention import HeldRow, Hold
from cdc_audit.ops.tiers import Tiers, survey
from cdc_audit.postgres import connect_async
from cdc_audit.sink.redaction import load_redaction
from cdc_audit.sink.retirement import covering
from tests.integration.trail.archiving import JANUARY, MARCH, POINTS, Scene, flipped
from tests.integration.trail.tampering import BEN
from tests.support.daemon import until
from tests.support.object_store import ObjectStore
from tests.support.proxy import Proxy
from tests.support.servers import Server


def test_what_is_due_leaves_the_database_for_its_archive_and_every_proof_holds(scene: Scene) -> None:
    before = scene.rows()
    plan = [json.loads(line) for line in scene.told("archive", "plan", "--json").splitlines()]
    assert [one["month"] for one in plan if one["step"] == "archive"] == ["2025-01", "2025-02", "2025-03"]
    assert {one["step"] for one in plan[3:]} == {"keep"}
    assert scene.rows() == before and not list((scene.folder / "archive").iterdir())
    said = scene.told("archive", "run").splitlines()
    assert [line[:15] for line in said] == ["2025-01: 9 rows", "2025-02: 6 rows", "2025-03: 3 rows"]
    assert scene.months() == []
    assert scene.rows() == before[18:]
    scene.verified()
    assert "not looked at: 18 archived rows of 2025-01 to 2025-03" in scene.call("log", "--limit", "1").stderr
    assert "changes of 2025-02 are in an archive" in scene.call("as-of", "orders", "--at", "now").output
    assert "archived: 18 rows are not here any more, as 3 retention blocks say" in scene.told(
        "verify", "--public-key", scene.public
    )
    scene.told("archive", "restore")
    assert scene.rows("restored.audit_logs") + scene.rows() == before
    assert scene.told("archive", "run") == "nothing to archive\n"
    assert "row 17 is in an archive: audit/manifests/2025-03-" in scene.refusal("verify", "--proof", "17")
    listed = [json.loads(line) for line in scene.told("archive", "list", "--json").splitlines()]
    assert [(one["month"], one["rows"], one["kept_until"][:10]) for one in listed] == [
        ("2025-01-01", 9, "2032-02-01"),
        ("2025-02-01", 6, "2032-03-01"),
        ("2025-03-01", 3, "2032-04-01"),
    ]
    assert [one["ids"] for one in listed] == [[[1, 6], [10, 12]], [[7, 9], [13, 15]], [[16, 18]]]


def test_the_rows_are_a_dataset_with_hives_partitioning_with_the_values_that_stood_there(
    scene: Scene,
) -> None:
    with psycopg.connect(scene.dsn) as connection:
        query = "select id, table_name, record_id, new_data::text, changed_fields, user_id, xid, row_hash from audit.audit_logs"
        stored = connection.execute(sql.SQL(query + " where id <= 18 order by id")).fetchall()
    scene.told("archive", "run")
    table = dataset.dataset(scene.folder / "archive/audit/rows", partitioning="hive").to_table().sort_by("id")
    names = ("id", "table_name", "record_id", "new_data", "changed_fields", "user_id", "xid", "row_hash")
    assert [tuple(row[name] for name in names) for row in table.to_pylist()] == stored
    assert sorted(set(table.column("month").to_pylist())) == ["2025-01", "2025-02", "2025-03"]


def process(scene: Scene, point: str) -> subprocess.Popen[str]:
    """``archive run``, armed with a failpoint."""
    env = {**scene.environment(), failpoint.VARIABLE: point}
    return subprocess.Popen([sys.executable, "-m", "cdc_audit", "archive", "run"], env=env, text=True,
                            stdout=subprocess.PIPE, stderr=subprocess.PIPE)  # fmt: skip


def test_killed_at_each_step_it_is_repeated_and_no_row_is_lost_or_doubled(scene: Scene) -> None:
    """K14 and K15: in each of the months, at each step in turn, each time the step before last is done."""
    before = scene.rows()
    for point in POINTS:
        running = process(scene, point)
        _, said = running.communicate(timeout=60)
        assert running.returncode == -signal.SIGKILL and f"failpoint {point}: kill" in said, said
        scene.told("verify", "--public-key", scene.public, "--archive", scene.place)
        if point != "month-retired":
            assert len(scene.months()) == 3 and scene.rows() == before
    assert scene.months() == ["2025_02", "2025_03"]
    scene.told("archive", "run")
    scene.verified()
    scene.told("archive", "restore")
    assert scene.rows("restored.audit_logs") + scene.rows() == before


def test_an_altered_byte_of_any_file_is_named_with_its_file(scene: Scene) -> None:
    scene.told("archive", "run")
    root = scene.folder / "archive"
    files = sorted(path for path in root.rglob("*") if path.is_file())
    assert len(files) == 9
    for path in files:
        size = path.stat().st_size
        for at in sorted({0, size - 1, *range(0, size, max(1, size // 12))}):
            back = flipped(path, at)
            done = scene.call("archive", "verify", "--public-key", scene.public, "--json", AUDIT_DSN="")
            said = json.loads(done.stdout.splitlines()[0])
            name = path.relative_to(root).as_posix()
            assert said["exit_code"] == 1 and name in {one["name"] for one in said["findings"]}, (
                name,
                at,
                said,
            )
            back()
    scene.verified()


def swap(first: Path, second: Path) -> None:
    other = first.read_bytes()
    first.write_bytes(second.read_bytes())
    second.write_bytes(other)


def test_what_is_taken_away_swapped_or_put_there_is_named_without_any_database(scene: Scene) -> None:
    scene.told("archive", "run")
    root = scene.folder / "archive/audit"
    manifests = sorted((root / "manifests").iterdir())
    rows = sorted((root / "rows").rglob("*.parquet"))

    def found() -> str:
        return scene.call("archive", "verify", "--public-key", scene.public, AUDIT_DSN="").output

    content = rows[1].read_bytes()
    rows[1].unlink()
    assert f"audit/rows/month=2025-02/{rows[1].name}: it is not here" in found()
    rows[1].write_bytes(content[:-1])
    assert "its manifest says" in found()
    rows[1].write_bytes(content)
    swap(rows[0], rows[2])
    assert found().count("bytes, its manifest says") == 2
    swap(rows[0], rows[2])
    swap(manifests[0], manifests[2])
    assert found().count("it is the manifest of another archive") == 2
    swap(manifests[0], manifests[2])
    hidden = manifests[1].read_bytes()
    manifests[1].unlink()
    assert f"{manifests[2].name}: the manifest that it names as the one before is not here" in found()
    manifests[1].write_bytes(hidden)
    assert "verified" in found()
    newest = manifests[2].read_bytes()
    manifests[2].unlink()
    assert scene.refusal("archive", "verify", "--public-key", scene.public).startswith(
        "3 incomplete evidence: 2 files belong"
    )
    assert (
        "it is not here, but block"
        in scene.call("verify", "--public-key", scene.public, "--archive", scene.place).output
    )
    manifests[2].write_bytes(newest)
    assert scene.refusal("archive", "verify").startswith("3 incomplete evidence: no public key")


def test_rows_that_no_longer_give_their_hash_are_not_archived(scene: Scene) -> None:
    with psycopg.connect(scene.dsn, autocommit=True) as connection:
        connection.execute("alter table audit.audit_logs_2025_01 disable trigger all")
        connection.execute("update audit.audit_logs set user_id = 'nobody' where id = 2")
    said = scene.refusal("archive", "run")
    assert said.startswith("1 2025-01 is not archived") and "row 2" in said and "cdc-audit verify" in said
    assert len(scene.months()) == 3
    assert "3 incomplete" in scene.refusal("archive", "verify", "--public-key", scene.public)
    with psycopg.connect(scene.dsn, autocommit=True) as connection:
        connection.execute("delete from audit.audit_logs where id = 2")
    assert "rows of block 1 are missing or of another month" in scene.refusal("archive", "run")


def test_a_month_that_is_gone_without_a_retention_block_is_still_named(scene: Scene) -> None:
    scene.told("archive", "run", "--months", "1")
    assert scene.months() == ["2025_02", "2025_03"]
    scene.server.execute("drop table audit.audit_logs_2025_03", dbname=scene.name)
    done = scene.call("verify", "--public-key", scene.public)
    assert "removed: rows 16-18: missing from its block" in done.output and "rows 1-" not in done.output


@pytest.mark.parametrize(
    "hold",
    [
        ("--table", "public.orders", "--since", "2025-02-01", "--until", "2025-03-01"),
        ("--user", "u2", "--until", "2025-12-31"),
        ("--user", "ben@shop.example", "--until", "2025-12-31"),
        ("--table", "orders", "--record", "8"),
    ],
    ids=" ".join,
)
def test_a_month_with_a_row_under_a_hold_stays_until_it_is_released(
    scene: Scene, hold: tuple[str, ...]
) -> None:
    number = scene.told("hold", "add", *hold, "--reason", "case 2026-118").split(":")[0].split()[1]
    scene.told("archive", "run")
    assert "2025_02" in scene.months()
    assert f"under hold {number}" in scene.told("archive", "plan")
    assert number in scene.told("hold", "list") and "case 2026-118" in scene.told("hold", "list")
    scene.told("hold", "release", number, "--reason", "closed")
    assert scene.told("hold", "list") == "no holds\n"
    assert "released by" in scene.told("hold", "list", "--all")
    assert scene.refusal("hold", "release", number, "--reason", "again").startswith(
        f"2 there is no hold {number}"
    )
    scene.told("archive", "run")
    assert scene.months() == []
    scene.verified()


def test_holds_that_make_no_sense_are_refused(scene: Scene) -> None:
    assert "nothing to hold" in scene.refusal("hold", "add", "--reason", "x")
    assert "--record is of a table" in scene.refusal("hold", "add", "--record", "1", "--reason", "x")
    assert "--reason must have" in scene.refusal("hold", "add", "--user", "u", "--reason", " ")
    assert "not later" in scene.refusal(
        "hold", "add", "--since", "2025-02-01", "--until", "2025-02-01", "--reason", "x"
    )


def halted(scene: Scene, point: str, meanwhile: Callable[[], object]) -> tuple[int, str]:
    """``archive run`` halts at a point, something else happens, it goes on: its exit code and what it said."""
    running = process(scene, f"{point}=stop")
    status = Path(f"/proc/{running.pid}/stat")
    until(lambda: status.read_text().rpartition(")")[2].split()[0] == "T", f"it halts at {point}")
    try:
        meanwhile()
    finally:
        running.send_signal(signal.SIGCONT)
    _, said = running.communicate(timeout=60)
    return running.returncode, said


def test_a_hold_that_is_added_while_a_month_is_being_dropped_keeps_it(scene: Scene) -> None:
    before = scene.rows()

    def add() -> None:
        scene.told("hold", "add", "--user", "u1", "--reason", "just in time")

    code, said = halted(scene, "month-closed", add)
    assert code == 1 and "2025-01 has rows under hold" in said
    assert len(scene.months()) == 3 and scene.rows() == before


def test_rows_that_come_into_a_month_while_it_is_archived_keep_it_and_later_ones_are_another_archive(
    scene: Scene,
) -> None:
    def write() -> None:
        scene.write(lambda writer: writer.data(2, JANUARY, context=BEN))

    code, said = halted(scene, "archive-manifest-kept", write)
    assert code == 1 and "2025-01: rows came in while it was archived" in said
    before = scene.rows()
    assert scene.told("archive", "run").startswith("2025-01: 11 rows")
    write()
    before += scene.rows()[-2:]
    assert scene.months() == ["2025_01"]
    assert scene.told("archive", "run").startswith("2025-01: 2 rows")
    scene.verified()
    scene.told("archive", "restore", "--since", "2025-01", "--until", "2025-01")
    rest = sorted(scene.rows("restored.audit_logs") + scene.rows(), key=lambda row: int(row.split(b"\t")[0]))
    assert [row for row in before if b"\t2025-02" not in row and b"\t2025-03" not in row] == rest


def all_text(folder: Path) -> str:
    """Whatever stands in any file of the archives, unpacked."""
    found = [path.read_text() for path in folder.rglob("*.txt")]
    for path in folder.rglob("*.parquet"):
        found += map(str, parquet.read_table(path).to_pylist())
    return "\n".join(found)


def left(scene: Scene) -> list[tuple[int, str | None]]:
    """What opens personal values: of which row, and the value while it is there."""
    query = "select id, value from audit.personal_values order by id, part, field"
    return [(row_id, value) for row_id, value in scene.server.execute(query, dbname=scene.name)]


def test_personal_values_never_enter_an_archive_and_are_erased_when_their_rows_are_in_one(
    scene: Scene,
) -> None:
    note = RedactRule(table="public.orders", column="note", mode="personal")
    rules = load_redaction(Redact(personal_context=("user_email",), rules=(note,)))
    eve = Context(Trust.SIGNED, "u7", "eve.canary@shop.example")
    scene.write(lambda writer: writer.data(2, MARCH, context=eve), rules)
    scene.write(lambda writer: writer.data(1, MARCH, context=BEN), rules)
    first = left(scene)[0][0]
    values = [value for _, value in left(scene) if value not in (None, "null")]
    assert len(values) == len(left(scene)) == 6 and any("canary" in str(value) for value in values)
    before = scene.rows()
    scene.told("archive", "run")
    assert scene.months() == [] and [value for _, value in left(scene)] == values
    said = all_text(scene.folder / "archive")
    assert said.count("personal:") == 6 and "canary" not in said
    files = {path: path.read_bytes() for path in scene.folder.rglob("*") if path.is_file()}
    scene.verified()
    assert f"ids {first}-{first + 1}" in scene.told("erase", "--user", "u7", "--reason", "x", "--dry-run")
    assert "2 values" in scene.told("erase", "--user", "u7", "--reason", "asked for")
    record = record_of(before, first)
    assert record_of(before, first + 2) == record
    scene.told("erase", "--table", "orders", "--record", record, "--reason", "asked for")
    assert [row_id for row_id, value in left(scene) if value is None] == [first, first, first + 1, first + 2]
    scene.verified()
    assert {path: path.read_bytes() for path in files} == files
    scene.told("archive", "restore", "--since", "2025-03", "--until", "2025-03")
    assert set(scene.rows("restored.audit_logs")) <= set(before)
    scene.server.execute(
        "alter table audit.personal_values disable trigger all; delete from audit.personal_values where id = "
        + str(first + 2),
        dbname=scene.name,
    )
    assert "removed: block" in scene.call("verify", "--public-key", scene.public).output
    next((scene.folder / "archive/audit/rows/month=2025-03").iterdir()).write_bytes(b"else")
    assert scene.refusal("erase", "--user", "u7", "--reason", "x").startswith("1 archive file:")


def record_of(rows: list[bytes], row_id: int) -> str:
    """The record of a row, of those that PostgreSQL prints."""
    return next(row.split(b"\t")[4].decode() for row in rows if row.startswith(b"%d\t" % row_id))


def test_the_daemons_own_role_counts_what_is_where(scene: Scene) -> None:
    async def counted() -> Tiers:
        dsn = scene.server.dsn(scene.name, "audit_writer")
        async with await connect_async(dsn, side="audit", application_name="test") as connection:
            return await survey(connection, "audit", 12)

    def files() -> int:
        root = scene.folder / "archive/audit"
        return sum(path.stat().st_size for path in root.rglob("*.parquet"))

    scene.server.execute("analyze audit.audit_logs", dbname=scene.name)
    found = asyncio.run(counted())
    assert found[0] == 21 and found.hot_bytes > 0 and found.due_months == 3
    assert (found.default_rows, found.archive_rows, found.archive_bytes, found.last_archive) == (0, 0, 0, 0)
    assert datetime.fromtimestamp(found.oldest_hot_month, UTC) == datetime(2025, 1, 1, tzinfo=UTC)
    number = scene.told("hold", "add", "--user", "u2", "--reason", "x").split(":")[0].split()[1]
    scene.told("archive", "run")
    found = asyncio.run(counted())
    assert (found.due_months, found.holds, found.archive_rows) == (2, 1, 3)
    assert found.archive_bytes == files() and found.last_archive > 1.7e9
    scene.told("hold", "release", number, "--reason", "x")
    scene.told("archive", "run")
    found = asyncio.run(counted())
    assert (found.due_months, found.holds, found.archive_rows, found.archive_bytes) == (0, 0, 18, files())
    scene.told("archive", "purge", RETENTION_HOT="1 month", RETENTION_KEEP="1 month")
    assert asyncio.run(counted())[5:7] == (0, 0)


def test_late_rows_that_missed_their_partition_are_archived_with_their_month(scene: Scene) -> None:
    before = scene.rows()
    astray = """
        begin;
        alter table audit.audit_logs detach partition audit.audit_logs_2025_02;
        insert into audit.audit_logs select * from audit.audit_logs_2025_02;
        drop table audit.audit_logs_2025_02;
        commit"""
    scene.server.execute(astray, dbname=scene.name)
    assert scene.months() == ["2025_01", "2025_03"]
    scene.server.execute("analyze audit.audit_logs_default", dbname=scene.name)
    assert "rows of no month stay" in scene.told("archive", "plan")
    done = scene.call("archive", "run")
    assert "2025-02: 6 rows moved out of the default partition" in done.stderr
    assert "2025-02: 6 rows in" in done.stdout
    scene.verified()
    scene.told("archive", "restore")
    assert scene.rows("restored.audit_logs") + scene.rows() == before


def test_only_one_archive_run_is_at_work_on_a_ledger(scene: Scene) -> None:
    def another() -> None:
        assert scene.refusal("archive", "run").startswith("75 another archive run")

    assert halted(scene, "archive-checked", another)[0] == 0


def test_a_member_of_audit_owner_need_be_no_superuser(scene: Scene) -> None:
    scene.server.execute("drop role if exists test_archivist")
    scene.server.execute("create role test_archivist login in role audit_owner")
    try:
        dsn = scene.server.dsn(scene.name, "test_archivist")
        number = (
            scene.told("hold", "add", "--user", "u2", "--reason", "x", AUDIT_DSN=dsn).split(":")[0].split()[1]
        )
        scene.told("hold", "release", number, "--reason", "x", AUDIT_DSN=dsn)
        scene.told("archive", "run", AUDIT_DSN=dsn)
    finally:
        scene.server.execute("drop role test_archivist")
    assert scene.months() == []
    scene.verified()


def test_what_an_archive_run_needs_is_said_before_anything_is_done(scene: Scene) -> None:
    assert "no key is given" in scene.refusal("archive", "run", LEDGER_SIGNING_KEY_FILE="")
    assert "archive in section [retention]" in scene.refusal("archive", "run", RETENTION_ARCHIVE="")
    assert "is not a folder" in scene.refusal("archive", "run", RETENTION_ARCHIVE=f"{scene.place}/nowhere")
    assert scene.refusal("archive", "restore").startswith("2 no archived month")
    assert len(scene.months()) == 3


def test_a_restored_month_is_verified_and_there_once(scene: Scene) -> None:
    before = scene.rows()
    scene.told("archive", "run")
    for _ in range(2):
        scene.told("archive", "restore", "--since", "2025-02", "--until", "2025-02", "--into", "back")
    assert scene.rows("back.audit_logs") == before[6:9] + before[12:15]
    assert '"record_id":"8"' in scene.told(
        "log", "--schema-name", "back", "--record", "8", "--table", "orders", "--json"
    )
    path = next((scene.folder / "archive/audit/rows/month=2025-02").iterdir())
    flipped(path, 100)
    assert "it is not the file" in scene.refusal("archive", "restore", "--into", "other")


def refusal(client: Any, **version: str) -> str:
    """How a version's deletion is refused."""
    with pytest.raises(ClientError) as refused:
        client.delete_object(**version)
    return str(refused.value.response["Error"]["Code"])


def test_archives_go_into_a_bucket_that_locks_them(scene: Scene, object_store: ObjectStore) -> None:
    before = scene.rows()
    bucket = object_store.bucket()
    scene.place = f"s3://{bucket}/trail?mode=COMPLIANCE&days=1"
    with pytest.MonkeyPatch.context() as patch:
        for name, value in object_store.environment.items():
            patch.setenv(name, value)
        scene.told("archive", "run")
        scene.verified()
        scene.told("archive", "restore")
        assert scene.rows("restored.audit_logs") + scene.rows() == before
        keys = object_store.keys(bucket)
        assert len(keys) == 9 and all(key.startswith("trail/audit/") for key in keys)
        client = object_store.client()
        for key in keys:
            kept = client.get_object_retention(Bucket=bucket, Key=key)["Retention"]
            assert kept["Mode"] == "COMPLIANCE"
            refused = refusal(
                client,
                Bucket=bucket,
                Key=key,
                VersionId=client.head_object(Bucket=bucket, Key=key)["VersionId"],
            )
            assert refused == "AccessDenied"
        client.put_object(Bucket=bucket, Key=keys[-1], Body=b"something else")
        assert (
            keys[-1].removeprefix("trail/")
            in scene.call("archive", "verify", "--public-key", scene.public).output
        )


def test_an_s3_server_that_breaks_connections_at_random_costs_time_and_no_row(
    scene: Scene, object_store: ObjectStore
) -> None:
    before = scene.rows()
    scene.place = f"s3://{object_store.bucket(locks=False)}/trail"
    stopping = threading.Event()
    rand = Random(7)

    def break_it() -> None:
        while not stopping.wait(rand.uniform(0.01, 0.06)):
            proxy.cut()

    with pytest.MonkeyPatch.context() as patch, Proxy("127.0.0.1", object_store.port) as proxy:
        for name, value in object_store.environment.items():
            patch.setenv(name, value)
        patch.setenv("AWS_ENDPOINT_URL_S3", f"http://127.0.0.1:{proxy.port}")
        breaker = threading.Thread(target=break_it)
        breaker.start()
        try:
            for _ in range(50):
                done = scene.call("archive", "run")
                assert done.exception is None or done.exception.exit_code == 69, done.exception  # type: ignore[attr-defined]
                if not scene.months():
                    break
        finally:
            stopping.set()
            breaker.join()
        scene.verified()
        scene.told("archive", "restore")
    assert scene.months() == [] and scene.rows("restored.audit_logs") + scene.rows() == before


def random_hold(rand: Random) -> Hold:
    """One that may be on anything: of each of its parts, nothing is said as often as not."""

    def maybe(*values: Any) -> Any:
        return rand.choice([*values, *[None] * len(values)])

    def at() -> datetime:
        return datetime(2025, 1, 1, tzinfo=UTC) + timedelta(hours=rand.randrange(90 * 24))

    users = ("u1", "u2", "ben@shop.example", "nobody")
    record, table = maybe("1", "8", "11", "18"), maybe("orders", "t")
    return Hold(
        rand.getrandbits(30), maybe("public", "crm"), table, record, maybe(*users), maybe(at()), maybe(at())
    )


def test_the_database_finds_rows_under_a_hold_by_the_same_rule_as_the_decision(
    audit_cluster: Server, old_trail: str
) -> None:
    """Of that rule a property test shows that no row under a hold is ever dropped (``unit/model/test_retention.py``)."""
    rand = Random(10)
    wanted = [random_hold(rand) for _ in range(300)]
    found: list[int] = []
    with postgres.connect(audit_cluster.dsn(old_trail), side="audit") as connection:
        for leaf in ("audit_logs_2025_01", "audit_logs_2025_02", "audit_logs_2025_03"):
            query = sql.SQL(
                "select created_at, schema_name, table_name, record_id, user_id, user_email from audit.{}"
            )
            rows = [HeldRow(*row) for row in connection.execute(query.format(sql.Identifier(leaf)))]
            held = covering(connection, "audit", leaf, wanted)
            assert held == [one.number for one in wanted if any(one.covers(row) for row in rows)]
            found += held
    assert 100 < len(found) < 800

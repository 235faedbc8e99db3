"""Questions that span the audit database and its archives have the answers that they had before anything was archived."""

from __future__ import annotations

import csv
import itertools
import json
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from random import Random
from typing import Any

import pytest
from click.testing import Result

from cdc_audit import postgres
from cdc_audit.config import Redact
from cdc_audit.errors import CheckFailedError
from cdc_audit.model.context import NO_CONTEXT
from cdc_audit.model.event import Action, ApplicationEvent, Change, Shape, Suppressed, Truncate
from cdc_audit.schema.migrate import migrate
from cdc_audit.sink.redaction import load_redaction
from cdc_audit.trail.archive_store import Bucket, Folder
from tests.integration.trail.archiving import Scene, key_files
from tests.integration.trail.tampering import ANN, BEN, KEY_A, LedgerWriter
from tests.support.object_store import ObjectStore
from tests.support.servers import Server

_NUMBERS = itertools.count()
_MONTHS = [f"2025-{month:02}-{day:02} 01:02:03.45+00" for month in range(1, 7) for day in (3, 9, 28)]
_COLUMNS = ("id", "email", "note", "price")


def _change(action: Action, table: str, new: list[bytes], old: list[bytes]) -> Change:
    names = [_COLUMNS if image else () for image in (new, old)]
    return (
        Shape(action, "public", table, "", names[0], names[1], bool(old), ("id",), (), nested=("note",)),
        new,
        old,
    )


def _image(key: int, rand: Random) -> list[bytes]:
    note = json.dumps(rand.choice(['é, \\ \t "quoted"', "plain", "42", "{x}"]), ensure_ascii=False).encode()
    return [
        str(key).encode(), b'"%d@shop.example"' % key, rand.choice([note, b"null", b'{"a": [1.50, null]}']),
        b"%d.%02d" % (rand.randrange(10**6), rand.randrange(100)),
    ]  # fmt: skip


def _trail(dsn: str) -> None:
    """Half a year of 2025, with changing keys, two tables of which one is in April only, personal values, and the present month."""
    rand = Random(5)
    with postgres.connect(dsn, side="audit") as connection:
        migrate(connection, "audit", None)
        redaction = load_redaction(
            Redact(
                rules=[{"table": "public.*", "column": "email", "mode": "personal"}],
                personal_context=["user_email"],
            )
        )
        with connection.transaction():
            writer = LedgerWriter(connection, KEY_A, redaction)
            writer.genesis()
            live: dict[int, list[bytes]] = {}
            for at in [*_MONTHS, f"{datetime.now(UTC):%Y-%m}-01 00:00:00+00"]:
                changes: list[Any] = [_step(live, rand) for _ in range(12)]
                if at.startswith("2025-04-09"):
                    changes += [
                        _change("INSERT", "rare", _image(7, rand), []),
                        Truncate("public", "rare", ""),
                    ]
                if at.startswith("2025-05-09"):
                    changes.append(ApplicationEvent("READ", "clinic.patients", "7", b'{"why": "a\\nb"}'))
                    changes.append(Suppressed("DELETE", "public", "keyless", ""))
                    writer.bare("gap", reason="slot lost")
                said_by = rand.choice([ANN, BEN])
                writer.data(1, at, *changes, context=NO_CONTEXT if at.startswith("2025-03-28") else said_by)


def _step(live: dict[int, list[bytes]], rand: Random) -> Change:
    key = rand.randrange(8)
    if key not in live:
        live[key] = _image(key, rand)
        return _change("INSERT", "customers", live[key], [])
    old = live.pop(key)
    if rand.random() < 0.2:
        return _change("DELETE", "customers", [], old)
    free = [other for other in range(8) if other not in live]
    after = rand.choice([key, key, key, *free])
    live[after] = _image(after, rand)
    return _change("UPDATE", "customers", live[after], old)


@pytest.fixture(scope="module")
def half_year(audit_cluster: Server) -> Iterator[str]:
    name = audit_cluster.create_database()
    _trail(audit_cluster.dsn(name))
    yield name
    audit_cluster.execute(f'drop database "{name}" with (force)')


@pytest.fixture
def scene(audit_cluster: Server, half_year: str, tmp_path: Path) -> Iterator[Scene]:
    name = f"tiers_{next(_NUMBERS)}"
    audit_cluster.execute(f'create database {name} template "{half_year}"')
    key_files(tmp_path)
    (tmp_path / "archive").mkdir()
    yield Scene(audit_cluster, name, tmp_path, f"file:{tmp_path / 'archive'}")
    audit_cluster.execute(f"drop database {name} with (force)")


QUESTIONS = [
    ("log",), ("log", "--limit", "5"), ("log", "--limit", "500", "--table", "customers", "--record", "3"),
    ("log", "--table", "public.customers", "--since", "2025-02-09T01:02:03.45", "--until", "2025-05-01"),
    ("log", "--user", "u1", "--limit", "300"), ("log", "--user", "u2", "--action", "delete"),
    ("log", "--email", "ann@shop.example"), ("log", "--ip", "10.0.0.0/8", "--limit", "7"), ("log", "--ip", "10.0.0.9"),
    ("log", "--field", "note", "--trust", "signed"), ("log", "--application", "web", "--limit", "80"),
    ("log", "--before", "note=plain"), ("log", "--after", "email=3@shop.example", "--limit", "200"),
    ("log", "--after", 'note={"a": [1.50, null]}'), ("log", "--after", "note=42"),
    ("log", "--text", "R\\1", "--since", "2025-01-01"),
    ("log", "--text", "A\nB", "--limit", "300"), ("log", "--xid", "705"), ("log", "--before-id", "100"), ("log", "--table", "rare"),
    ("log", "--table", "patients"), ("log", "--action", "READ"), ("deletions", "--since", "2025-01-01"),
    *((("history", "customers", str(key))) for key in range(4)), ("history", "rare", "7"), ("history", "customers", "99"),
    ("as-of", "customers", "--at", "2025-04-09T12:00"), ("as-of", "customers", "3", "--at", "2025-03-28T12:00"),
    ("as-of", "customers", "--at", "2025-06-30"), ("as-of", "rare", "--at", "2025-04-30"),
]  # fmt: skip


def _begins_in_2025(scene: Scene) -> None:
    """As if the trail had been begun then: ``as-of`` asks the ledger since when it is."""
    scene.server.execute("alter table audit.ledger disable trigger all", dbname=scene.name)
    scene.server.execute(
        "update audit.ledger set written_at = '2025-01-01' where kind = 'genesis'", dbname=scene.name
    )


def _answers(scene: Scene, *more: str, every: int = 1) -> list[tuple[int, str]]:
    found = []
    for question in QUESTIONS[::every]:
        form = () if question[0] == "as-of" else ("--json",)
        done = scene.call(*question, *form, *more)
        assert done.exception is None or question[:2] == ("as-of", "customers"), (question, done.exception)
        found.append((done.exit_code, done.stdout))
    return found


def test_every_question_has_the_answer_that_it_had_before_the_months_were_archived(scene: Scene) -> None:
    _begins_in_2025(scene)
    before = _answers(scene)
    silent = [question for question, (_, said) in zip(QUESTIONS, before, strict=True) if not said]
    assert len(silent) <= 4, silent  # what nothing is known of
    assert len(scene.told("archive", "run").splitlines()) == 6 and scene.months() == []
    after = _answers(scene, "--tier", "all")
    for question, was, now in zip(QUESTIONS, before, after, strict=True):
        assert now == was, question
    assert scene.call("history", "rare", "7", "--json").stdout == "", "without it, archives are not looked at"


def test_the_same_of_a_bucket_of_which_only_pieces_are_fetched(
    scene: Scene, object_store: ObjectStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in object_store.environment.items():
        monkeypatch.setenv(name, value)
    _begins_in_2025(scene)
    before = _answers(scene, every=16)
    scene.place = f"s3://{object_store.bucket(locks=False)}/trail"
    scene.told("archive", "run", "--months", "2")
    opened = Bucket.open

    def manifests_only(self: Bucket, name: str) -> Any:
        assert "/manifests/" in name, "a whole file was fetched"
        return opened(self, name)

    monkeypatch.setattr(Bucket, "open", manifests_only)
    assert _answers(scene, "--tier", "all", every=16) == before


@pytest.fixture
def files_opened(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The months whose rows' files are opened, each time that one is."""
    asked: list[str] = []
    piece = Folder.piece

    def noted(self: Folder, name: str, start: int, end: int) -> bytes:
        month = name.split("month=")[1][:7]
        if month not in asked:
            asked.append(month)
        return piece(self, name, start, end)

    monkeypatch.setattr(Folder, "piece", noted)
    return asked


@pytest.mark.parametrize(
    ("question", "months"),
    [
        (("history", "rare", "7"), ["2025-04"]),
        (("log", "--table", "rare", "--record", "7"), ["2025-04"]),
        (("log", "--limit", "20"), ["2025-06"]),
        (("log", "--table", "customers", "--record", "3", "--until", "2025-03-04"), ["2025-03", "2025-02", "2025-01"]),
        (("log", "--table", "customers", "--record", "3", "--since", "2025-03-29", "--until", "2025-04-01"), []),
        (("log", "--before-id", "30", "--limit", "1"), ["2025-01"]),
        (("history", "nothing", "7"), []),
    ],
)  # fmt: skip
def test_only_files_that_can_hold_the_answer_are_opened(
    scene: Scene, files_opened: list[str], question: tuple[str, ...], months: list[str]
) -> None:
    scene.told("archive", "run")
    files_opened.clear()
    scene.told(*question, "--tier", "all")
    assert files_opened == months


def test_an_erased_value_is_erased_in_what_archives_show_too(scene: Scene) -> None:
    scene.told("archive", "run")
    ask = ("history", "customers", "3", "--json", "--tier", "all")
    assert "3@shop.example" in scene.told(*ask)
    scene.told("erase", "--table", "customers", "--record", "3", "--reason", "art. 17")
    shown = scene.told(*ask)
    assert "3@shop.example" not in shown and "[erased]" in shown


def test_an_archive_that_is_not_the_one_that_the_ledger_names_is_refused(scene: Scene) -> None:
    scene.told("archive", "run")
    root = scene.folder / "archive/audit"
    (rows,) = (root / "rows/month=2025-02").iterdir()
    content = rows.read_bytes()
    rows.write_bytes(content[: len(content) // 2])
    ask = ("history", "customers", "3", "--tier", "all")
    said = scene.refusal(*ask)
    assert said.startswith("1 archive file:") and f"month=2025-02/{rows.name} can't be read" in said
    rows.unlink()
    assert "is not here" in scene.refusal(*ask)
    rows.write_bytes(content)
    (manifest,) = (root / "manifests").glob("2025-02-*")
    manifest.write_bytes(manifest.read_bytes().replace(b"customers", b"customerz"))
    assert "is not the manifest that block" in scene.refusal(*ask)


def test_without_duckdb_it_says_what_to_install(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    scene.told("archive", "run", "--months", "1")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    said = scene.call("log", "--tier", "all").exception
    assert "reading archives needs duckdb" in str(said) and "cdc-audit[cold]" in str(
        getattr(said, "remedy", "")
    )


WHOLE = ("2025-01-01", f"{datetime.now(UTC):%Y-%m}-02")
MIDST = ("2025-02-05T12:00", "2025-05-28T01:02:03.45")  # of that moment's rows none
Sections = dict[str, list[list[str]]]


def _report(scene: Scene, span: tuple[str, str], *more: str) -> tuple[Sections, Result]:
    """The report's tables, each with its columns' names first."""
    output = scene.folder / "report"
    times = ("--since", span[0], "--until", span[1], "--output", str(output))
    done = scene.call("report", *times, "--public-key", scene.public, *more)
    found: Sections = {}
    for title, *cells in csv.reader((scene.folder / "report.csv").read_text().splitlines()):
        found.setdefault(title, []).append(cells)
    return found, done


def _counted(scene: Scene, span: tuple[str, str]) -> Sections:
    """What a report on the trail must count, of its rows as they stand in the database: counts and, where it tells them, bounds."""
    query = """select action, context_trust, capture, coalesce(user_id, user_email, ''), coalesce(db_user, ''), schema_name,
        table_name, to_char(created_at at time zone 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS"Z"'), id from audit.audit_logs"""
    rows = scene.server.execute(
        f"{query} where created_at >= '{span[0]}+00' and created_at < '{span[1]}+00' order by id",
        dbname=scene.name,
    )
    removals = [row for row in rows if row[0] in ("DELETE", "TRUNCATE")]
    doubtful = [row for row in rows if row[1] in ("none", "forged", "invalid")]
    partial = [row for row in rows if row[2] not in ("full", "snapshot")]
    actors = _grouped(rows, (3, 4), 7)
    deletions = Counter((row[3], row[4]) for row in removals)
    for one in actors:
        one.insert(3, str(deletions[one[0], one[1]]))
    return {
        "rows by action": [one[:4] for one in _grouped(rows, (0, 1, 2), 8)],
        "actors": actors,
        "deletions": _grouped(removals, (5, 6, 0, 3), 7),
        "changes that nobody can be believed to have made": _grouped(doubtful, (5, 6, 1), 8),
        "changes without whole row images": _grouped(partial, (5, 6, 0, 2), 8),
    }


def _grouped(rows: list[tuple[Any, ...]], by: tuple[int, ...], bound: int) -> list[list[str]]:
    groups: dict[tuple[str, ...], list[Any]] = {}
    for row in rows:
        groups.setdefault(tuple(row[at] for at in by), []).append(row[bound])
    return sorted([*key, *map(str, (len(some), min(some), max(some)))] for key, some in groups.items())


GONE = "months of this time that have left the database"


def test_a_report_counts_the_same_rows_before_and_after_they_were_archived(scene: Scene) -> None:
    was = {}
    for span in (WHOLE, MIDST):
        was[span], done = _report(scene, span)
        assert done.exception is None and "not looked at" not in done.stderr
        expected = _counted(scene, span)
        assert all(expected.values())
        for title, rows in expected.items():
            assert sorted(was[span][title][1:]) == rows, title
        assert len(was[span]["gaps of the whole trail"]) == 2 and len(was[span].pop(GONE)) == 1
    scene.told("archive", "run")
    for span, counted in ((WHOLE, range(1, 7)), (MIDST, range(2, 6))):
        now, done = _report(scene, span, "--tier", "all")
        assert done.exception is None and "not looked at" not in done.stderr
        months = [f"2025-{month:02}" for month in counted]
        gone = now.pop(GONE)
        assert [(month, here) for month, _, here, *_ in gone[1:]] == [
            (one, "archived, counted") for one in months
        ]
        assert {**now, "verification": []} == {**was[span], "verification": []}
        told = " ".join(line for (line,) in now["verification"])
        assert f"archives verified with files, rows, blocks and signatures: {', '.join(months)} (" in told
        others = "archives of other times, of which only manifests were verified: 2025-01, 2025-06 (" in told
        assert others == (span is MIDST) and "their manifests were compared" in told


def test_a_report_on_the_database_alone_names_the_months_that_it_does_not_count(scene: Scene) -> None:
    total = _report(scene, WHOLE)[0]["scope"][4]
    scene.told("archive", "run", "--months", "3")
    found, done = _report(scene, ("2025-02-05", "2025-06-01"))
    listed = [json.loads(line) for line in scene.told("archive", "list", "--json").splitlines()]
    rows = sum(one["rows"] for one in listed[1:])
    said = f"{rows} archived rows of 2025-02, 2025-03 (--tier all counts them)"
    assert ["not counted", said] in found["scope"]
    assert f"not looked at: {rows:,} archived rows of 2025-02 to 2025-03" in done.stderr
    gone = found[GONE][1:]
    assert [(month, here) for month, _, here, *_ in gone] == [
        ("2025-02", "archived, not counted"),
        ("2025-03", "archived, not counted"),
    ]
    found, done = _report(scene, ("2025-04-01", "2025-06-01"))
    assert "not counted" not in str(found["scope"]) and "not looked at" not in done.stderr
    scene.told("archive", "purge", "--without-archive", RETENTION_HOT="1 month", RETENTION_KEEP="1 month")
    found, done = _report(scene, WHOLE, "--tier", "all")
    assert "purged rows of 2025-01, 2025-02, 2025-03" in str(found["scope"]) and done.exception is None
    assert int(total[1]) > int(found["scope"][4][1]) > 0


def test_a_report_names_an_archive_that_is_not_what_was_written(scene: Scene) -> None:
    scene.told("archive", "run")
    root = scene.folder / "archive/audit"
    (blocks,) = (root / "blocks/month=2025-03").iterdir()
    content = blocks.read_bytes()
    blocks.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    found, done = _report(scene, MIDST, "--tier", "all")
    told = [line for (line,) in found["verification"]]
    assert isinstance(done.exception, CheckFailedError) and "verified" not in told
    assert any(f"month=2025-03/{blocks.name}: it is not the file whose" in line for line in told), told
    blocks.write_bytes(content)
    (newest,) = (root / "manifests").glob("2025-06-*")
    content = newest.read_bytes()
    newest.unlink()
    found, done = _report(scene, MIDST, "--tier", "all")
    assert isinstance(done.exception, CheckFailedError)
    assert any(f"{newest.name}: it is not here, but block" in line for (line,) in found["verification"])
    newest.write_bytes(content)
    (rows,) = (root / "rows/month=2025-04").iterdir()
    rows.unlink()
    (scene.folder / "report.csv").unlink()
    assert f"month=2025-04/{rows.name} is not here" in scene.refusal(
        "report", "--since", MIDST[0], "--output", str(scene.folder / "report"), "--tier", "all"
    )
    assert not (scene.folder / "report.csv").exists(), "what can't be counted is not reported on"

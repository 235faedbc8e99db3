"""The examples in ``--help`` of all that acts: each is run, word by word, in a small world in which it makes sense.

Only what stands for the reader's own is replaced: DSNs, folders, positions, numbers. Examples of commands that read a trail are run
by ``integration/trail/test_help.py``; those of ``demo``, ``quarantine``, ``reads follow``, ``schema view``, which need other
worlds, by their tests.
"""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from cdc_audit.model.context import NO_CONTEXT
from cdc_audit.seal.signature import Signer
from tests.integration.trail.test_help import RUN
from tests.support.command_line import Done, commands, examples, run
from tests.support.daemon import DaemonProcess, until
from tests.support.databases import Databases, new_databases
from tests.support.servers import Server
from tests.support.small_trail import Shop, row, write_small_trail

# In this order.
STORY: tuple[tuple[str, ...], ...] = (
    ("init",), ("schema", "migrate"), ("schema", "status"), ("schema", "partitions"), ("schema", "index"), ("source", "install"),
    ("source", "tables"), ("source", "keys"), ("snapshot",), ("run",), ("context", "check"), ("doctor",), ("hold", "add"),
    ("hold", "list"), ("hold", "release"), ("erase",), ("key", "rotate"), ("slot", "status"), ("slot", "advance"),
    ("slot", "recreate"), ("slot", "drop"), ("slot", "create"), ("source", "uninstall"),
)  # fmt: skip
ARCHIVES = tuple(("archive", name) for name in ("plan", "run", "list", "verify", "fetch", "restore", "purge"))
SOURCE = """
create schema shop; create schema crm;
create table shop.orders (id int primary key);
create table crm.customers (id int primary key, email text);
create table notes (id int primary key, note text);
"""
REDACT = "[[redact.rules]]\ntable = 'crm.customers'\ncolumn = 'email'\nmode = 'personal'\n"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What stands for /etc/cdc-audit and /mnt, with two keys; commands run in it."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "archive").mkdir()
    for name in ("signing.pem", "signing-2027.pem"):
        assert run("key", "generate", name).code == 0
    return tmp_path


@pytest.fixture
def world(source_cluster: Server, audit_cluster: Server) -> Iterator[Databases]:
    databases = new_databases(source_cluster, audit_cluster)
    databases.source.execute(SOURCE, dbname=databases.source_name)
    yield databases
    databases.drop()


class Reader:
    """Who follows the examples: each as it stands, but for what is the reader's own."""

    def __init__(self, folder: Path, env: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
        self._own = {"/etc/cdc-audit": str(folder), "/mnt": str(folder)}
        self._env = {name: value for name, value in env.items() if name.startswith("CDC_AUDIT_")}
        self._patch = monkeypatch
        self._left = dict(commands())

    def own(self, **words: str) -> None:
        """More that stands for something else."""
        self._own |= words

    def types(self, *words: str) -> list[str]:
        """The words of the (first) example, after the program's name."""
        return self._typed(words)[0]

    def follows(self, *words: str) -> list[Done]:
        """Run all there are, each of which must succeed; questions are answered with yes."""
        done = []
        for arguments in self._typed(words):
            self._patch.setattr("sys.stdin", io.StringIO("yes\n"))
            done.append(run(*arguments, env=self._env))
            assert done[-1].code == 0, (arguments, done[-1])
        return done

    def _typed(self, words: tuple[str, ...]) -> list[list[str]]:
        typed = [[self._meant(one) for one in example] for example in examples(self._left[words])]
        assert typed[-1][: len(words)] == list(words), typed
        return typed

    def _meant(self, word: str) -> str:
        for theirs, own in self._own.items():
            word = word.replace(theirs, own)
        return word


def test_who_follows_the_examples_sets_up_runs_and_takes_down_a_trail(
    world: Databases, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = folder / "cdc-audit.toml"
    config.write_text(f"[ledger]\nsigning_key_file = '{folder / 'signing.pem'}'\n{REDACT}")
    env = world.environment(CONFIG=str(config), BATCH_FLUSH_INTERVAL="0")
    reader = Reader(folder, env, monkeypatch)
    reader.own(**{"host=db dbname=app user=shop": world.source_dsn})
    for words in STORY[: STORY.index(("run",))]:
        (done,) = reader.follows(*words)
        if words == ("source", "keys"):
            assert all(json.loads(line) for line in done.stdout.splitlines())
    arguments = reader.types("run")
    assert arguments[0] == "run"
    with DaemonProcess(env, folder / "log", *arguments[1:]) as daemon:
        daemon.until_ready()
        world.source.execute(
            "insert into crm.customers values (4711, 'ann@example.org')", dbname=world.source_name
        )
        until(lambda: daemon.metric("rows_total", action="INSERT"), "there is something to erase")
        for words in STORY[STORY.index(("run",)) + 1 : STORY.index(("key", "rotate"))]:
            if words == ("hold", "release"):
                (held,) = world.audit.execute(
                    "select block from audit.ledger where kind = 'hold'", dbname=world.audit_name
                )
                reader.own(**{"118": str(held[0])})
            reader.follows(*words)
        assert daemon.stop() == 0
    erased = "select count(*) from audit.personal_values where value is null"
    assert world.audit.execute(erased, dbname=world.audit_name) == [(1,)]
    reader.follows("key", "rotate")
    config.write_text(config.read_text().replace("signing.pem", "signing-2027.pem"))
    (lsn,) = world.source.execute("select pg_current_wal_lsn()::text", dbname=world.source_name)
    reader.own(**{"16/B374D848": lsn[0]})
    for words in STORY[STORY.index(("slot", "status")) :]:
        reader.follows(*words)
    left = "select count(*) from pg_namespace where nspname = 'cdc_audit'"
    assert world.source.execute(left, dbname=world.source_name) == [(0,)]


def test_who_follows_the_examples_archives_restores_and_purges_old_months(
    audit_cluster: Server, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = audit_cluster.create_database()
    shop = Shop(datetime(2024, 1, 5, tzinfo=UTC))
    for number in range(4):
        shop.transaction(NO_CONTEXT, row("shop.orders", None, {"id": number}), minutes=30 * 24 * 60)
    shop.transaction(NO_CONTEXT, row("shop.orders", None, {"id": 9}), minutes=700 * 24 * 60)
    signer = Signer.from_pem((folder / "signing.pem").read_bytes())
    write_small_trail(audit_cluster.dsn(name), shop.stretches, signer, datetime(2024, 1, 1, tzinfo=UTC))
    env = {
        "CDC_AUDIT_AUDIT_DSN": audit_cluster.dsn(name),
        "CDC_AUDIT_LEDGER_SIGNING_KEY_FILE": str(folder / "signing.pem"),
        "CDC_AUDIT_RETENTION_ARCHIVE": f"file:{folder / 'archive'}",
        "CDC_AUDIT_RETENTION_HOT": "1 year",
    }
    reader = Reader(folder, env, monkeypatch)
    for words in ARCHIVES[:-1]:
        reader.follows(*words)
    rows = "select count(*) from restored.audit_logs"
    assert audit_cluster.execute(rows, dbname=name)[0][0] > 0
    reader = Reader(folder, {**env, "CDC_AUDIT_RETENTION_KEEP": "2 years"}, monkeypatch)
    reader.follows("archive", "purge")
    audit_cluster.execute(f'drop database "{name}" with (force)')


def test_every_example_is_run_somewhere() -> None:
    elsewhere = {("demo",), ("quarantine",), ("reads", "follow"), ("schema", "view")}
    assert {words for words, _ in commands()} == {*STORY, *ARCHIVES, *RUN, *elsewhere}

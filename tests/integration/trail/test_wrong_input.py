"""Wrong input, of every option of every command and of all that they read: one line that says what, an exit code, no traceback."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from tests.support.command_line import commands, run
from tests.support.servers import Server
from tests.support.small_trail import BEGUN, Shop, row, said_by, write_small_trail

HOSTILE = "\x1b[2J\u202e=1+1\n'; drop table x; --"
NOWHERE = {"CDC_AUDIT_SOURCE_DSN": "host=127.0.0.1 port=1", "CDC_AUDIT_AUDIT_DSN": "host=127.0.0.1 port=1"}


@pytest.fixture(scope="module")
def dsn(audit_cluster: Server) -> Iterator[str]:
    name = audit_cluster.create_database()
    write_small_trail(
        audit_cluster.dsn(name),
        Shop(BEGUN).transaction(said_by("u1"), row("orders", None, {"id": 1})).stretches,
    )
    yield audit_cluster.dsn(name)
    audit_cluster.execute(f'drop database "{name}" with (force)')


def assert_one_line(code: int, stdout: str, stderr: str, about: object) -> None:
    lines = stderr.splitlines()
    assert code in {1, 2, 69, 77, 78}, (about, code, stderr)
    assert stdout == "", about
    assert lines[0].startswith("cdc-audit"), (about, stderr)
    assert len(lines) == 1 or (len(lines) == 2 and lines[1].startswith("  to mend it: ")), (about, stderr)
    assert all(line.isprintable() for line in lines), (about, stderr)
    assert "Traceback" not in stderr
    assert "internal error" not in stderr


def wrong_values() -> Iterator[tuple[str, ...]]:
    """A call of each command for each option whose values are not just any text, and some that no command takes."""
    for words, command in commands():
        yield (*words, "--no-such-option")
        yield (*words, HOSTILE, HOSTILE, HOSTILE, HOSTILE)
        for option in command.params:
            if not isinstance(option, click.Option) or option.is_flag:
                continue
            if option.metavar in {"TIME", "SPAN", "NETWORK", "COLUMN=VALUE"} or not isinstance(
                option.type, click.types.StringParamType | click.Path
            ):
                wanted = [part for one in _required(command, option) for part in one]
                for value in ("nonsense", HOSTILE, ""):
                    yield (*words, *wanted, f"{option.opts[0]}={value}")


def _required(command: click.Command, but: click.Option) -> Iterator[tuple[str, ...]]:
    for one in command.params:
        if isinstance(one, click.Option) and one.required and one is not but:
            yield (f"{one.opts[0]}=1h",)
        elif isinstance(one, click.Argument) and one.required:
            yield ("1",) * max(1, one.nargs)


@pytest.mark.parametrize("arguments", list(wrong_values()), ids=lambda one: " ".join(map(ascii, one)))
def test_every_wrong_value_is_told_in_one_line(arguments: tuple[str, ...]) -> None:
    assert_one_line(*run(*arguments, env=NOWHERE), arguments)


WRONG = {
    ("log", "--table", 'a"b'): "not a table",
    ("log", "--follow", "--before-id", "1"): "--follow goes on from the newest row",
    ("log", "--before-id", "999999"): "no row 999999",
    ("log", "--since", "999999d"): "not a time",
    ("history", "shop.a.b", "1"): "not a table",
    ("show", "999999"): "no row 999999",
    ("as-of", "orders", "--at", "2001-01-01"): "does not reach back",
    ("as-of", "orders", "7", "--at", "now"): "no such record",
    ("undo",): "what is to be undone?",
    ("undo", "--xid", "1", "--id", "1"): "what is to be undone?",
    ("undo", "--xid", "4242"): "no such changes",
    ("suspicious", "--rule", "nobody"): "no such rule",
    ("suspicious", "--rule", "x", "--window", "1h"): "a rule has its own",
    ("report", "--since", "now", "--until", "1h", "--output", "x"): "--since is not before --until",
    ("report", "--since", "1h", "--output", "/nowhere/at/all"): "No such file or directory",
    ("report", "--since", "1h", "--output", "x", "--signing-key", "/nowhere"): "/nowhere",
    ("verify", "--public-key", "/nowhere"): "/nowhere",
    ("verify", "--proof", "999999"): "999999",
    ("verify", "--since", "soon"): "soon",
    ("log", "--schema-name", "elsewhere"): "no trail in schema elsewhere",
}


@pytest.mark.parametrize("arguments", list(WRONG), ids=" ".join)
def test_what_a_trail_has_not_is_said_in_one_line(arguments: tuple[str, ...], dsn: str) -> None:
    done = run(*arguments, "--dsn", dsn)
    assert_one_line(*done, arguments)
    assert WRONG[arguments] in done.stderr


def test_no_database_a_wrong_one_and_no_text_at_all(dsn: str, tmp_path: Path) -> None:
    (tmp_path / "bad.toml").write_text("[audit]\ncolour = 1\n")
    (tmp_path / "worse.toml").write_text("\x00[")
    for arguments, env, said in (
        (("log",), {}, "[audit] dsn is not set"),
        (("log",), NOWHERE, "audit database"),
        (("log", "--dsn", "host='"), {}, "can't be read"),
        (("log", "--dsn", dsn.replace("dbname=", "dbname=no")), {}, "does not exist"),
        (("log", "--user", "\udcff"), {}, "not text"),
        (("log", "--config", str(tmp_path / "bad.toml")), {}, "unknown key [audit] colour"),
        (("log", "--config", str(tmp_path / "worse.toml")), {}, "worse.toml"),
        (("lock",), {}, "lock"),
    ):
        done = run(*arguments, env=env)
        assert_one_line(*done, arguments)
        assert said in done.stderr

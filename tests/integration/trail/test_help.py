"""The examples in ``--help`` of commands that read the trail, run on one. Those that act: ``acceptance/test_help_examples.py``."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from cdc_audit.seal.signature import Signer
from cdc_audit.sink.anchor import anchor_line
from tests.support.command_line import commands, examples, run
from tests.support.servers import Server
from tests.support.small_trail import Shop, row, said_by, write_small_trail

RUN = {
    ("log",), ("history",), ("show",), ("deletions",), ("who",), ("context", "missing"), ("suspicious",), ("as-of",), ("undo",),
    ("report",), ("verify",), ("config", "show"), ("config", "example"), ("completion",), ("man",), ("key", "generate"),
    ("key", "show"),
}  # fmt: skip
FAR_ENOUGH = 4711  # cdc-audit show 4711


@pytest.fixture(scope="module")
def trail(audit_cluster: Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder with what examples name: keys, anchors, and the DSN of a trail in ``dsn``."""
    folder = tmp_path_factory.mktemp("examples")
    for name in ("signing.pem", "report.pem"):
        assert run("key", "generate", str(folder / name)).code == 0
    name = audit_cluster.create_database()
    new, paid = {"id": 42, "status": "new"}, {"id": 42, "status": "paid"}
    shop = Shop(datetime(2026, 11, 20, 8, tzinfo=UTC))
    shop.transaction(said_by("u42"), row("shop.orders", None, new), row("shop.orders", new, paid))
    many = [row("shop.parts", None, {"id": number}) for number in range(FAR_ENOUGH)]
    shop.transaction(said_by("u42"), *many)
    signer = Signer.from_pem((folder / "signing.pem").read_bytes())
    receipt = write_small_trail(audit_cluster.dsn(name), shop.stretches, signer)
    (folder / "anchors.jsonl").write_bytes(anchor_line("audit", receipt) + b"\n")
    (folder / "dsn").write_text(audit_cluster.dsn(name))
    yield folder
    audit_cluster.execute(f'drop database "{name}" with (force)')


@pytest.mark.parametrize("words", sorted(RUN), ids=" ".join)
def test_the_example_of_a_command_that_reads_the_trail_works(
    words: tuple[str, ...], trail: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    command = dict(commands())[words]
    dsn = (trail / "dsn").read_text()
    for file in trail.iterdir():
        if words != ("key", "generate"):
            (tmp_path / file.name).write_bytes(file.read_bytes())
    for key in tmp_path.glob("*.pem"):
        key.chmod(0o600)
    monkeypatch.chdir(tmp_path)
    arguments = [
        dsn if one == "host=audit user=alice" else one.replace("/etc/cdc-audit", str(tmp_path))
        for one in examples(command)[0]
    ]
    assert arguments[: len(words)] == list(words)
    done = run(*arguments, env={"CDC_AUDIT_AUDIT_ADMIN_DSN": dsn})
    assert done.code == 0, done.stderr
    assert done.stdout or done.stderr == "nothing\n" or words == ("deletions",)

"""The key of mode hmac: read only where a rule needs it, and only from a file that nobody else can have read."""

from __future__ import annotations

import os
import stat
import subprocess
from pathlib import Path

import pytest

from cdc_audit.config import Redact, RedactRule
from cdc_audit.errors import SettingError
from cdc_audit.sink.redaction import load_redaction

RULE = RedactRule(column="ssn", mode="hmac")


def settings(file: Path | str) -> Redact:
    return Redact(rules=(RULE,), hmac_key_file=str(file))


def made(file: Path, data: bytes, mode: int = 0o600) -> Path:
    file.write_bytes(data)
    file.chmod(mode)
    return file


def test_a_key_is_read_as_it_is(tmp_path: Path) -> None:
    data = b"\n" + bytes(range(40)) + b"\n"
    redaction = load_redaction(settings(made(tmp_path / "key", data)))
    assert (redaction.rules, redaction.hmac_key) == ((RULE,), data)


def test_without_a_rule_that_needs_it_no_key_is_read() -> None:
    rule = RedactRule(column="ssn", mode="drop")
    assert load_redaction(Redact(rules=(rule,), hmac_key_file="/nowhere")).hmac_key == b""


def test_a_missing_key_is_told_with_the_command_that_makes_one(tmp_path: Path) -> None:
    file = tmp_path / "a key"
    with pytest.raises(SettingError) as error:
        load_redaction(settings(file))
    assert "No such file" in error.value.message
    subprocess.run(str(error.value.remedy), shell=True, check=True)
    assert len(load_redaction(settings(file)).hmac_key) == 32
    with pytest.raises(SettingError) as error:
        load_redaction(settings(""))
    assert "hmac_key_file names no key" in error.value.message and "/dev/urandom" in str(error.value.remedy)


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620])
def test_a_key_that_others_have_rights_on_is_refused(tmp_path: Path, mode: int) -> None:
    file = made(tmp_path / "key", b"k" * 32, mode)
    with pytest.raises(SettingError, match=f"mode {mode:04o}") as error:
        load_redaction(settings(file))
    assert str(error.value.remedy).startswith(f"chmod 600 {file}")


def test_a_short_key_is_refused_without_being_told(tmp_path: Path) -> None:
    with pytest.raises(SettingError, match="31 bytes, at least 32") as error:
        load_redaction(settings(made(tmp_path / "key", b"k" * 31)))
    assert "kkk" not in str(error.value)


def root_owned(monkeypatch: pytest.MonkeyPatch) -> None:
    """All files are root's, and this process is not root's."""
    real = os.fstat

    def fstat(descriptor: int) -> os.stat_result:
        fields = list(real(descriptor)[:10])
        fields[stat.ST_UID] = 0
        return os.stat_result(fields)

    monkeypatch.setattr(os, "fstat", fstat)
    monkeypatch.setattr(os, "geteuid", lambda: 65532)


@pytest.mark.parametrize("mode", [0o440, 0o640, 0o400])
def test_a_key_that_root_lets_the_daemons_group_read_is_read_as_kubernetes_mounts_it(
    tmp_path: Path, mode: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = made(tmp_path / "key", b"k" * 32, mode)
    root_owned(monkeypatch)
    assert load_redaction(settings(file)).hmac_key == b"k" * 32


@pytest.mark.parametrize("mode", [0o660, 0o444, 0o641])
def test_a_key_of_roots_that_more_than_its_group_may_read_is_refused(
    tmp_path: Path, mode: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = made(tmp_path / "key", b"k" * 32, mode)
    root_owned(monkeypatch)
    with pytest.raises(SettingError, match=f"mode {mode:04o}") as error:
        load_redaction(settings(file))
    assert str(error.value.remedy).startswith(f"chmod 640 {file}\n")

"""``cdc-audit config``: an example that is complete, and values with their origin and without secrets."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any

import orjson
import pytest
from click.testing import CliRunner

from cdc_audit.cli import cdc_audit
from cdc_audit.cli.config import example
from cdc_audit.config import Config, RedactRule

DEPLOYED = Path(__file__).parents[3] / "deploy/config/cdc-audit.toml"


def shown(monkeypatch: pytest.MonkeyPatch, *arguments: str, **environment: str) -> dict[tuple[str, str], Any]:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    result = CliRunner().invoke(cdc_audit, ["config", "show", "--json", *arguments])
    assert result.exit_code == 0, result.output
    lines = [orjson.loads(line) for line in result.output.splitlines()]
    return {(line["section"], line["key"]): line for line in lines}


def uncommented(text: str) -> str:
    """With the keys in force that stand behind a #; prose has a space after it."""
    return re.sub(r"^#(?=\S)", "", text, flags=re.MULTILINE)


def test_the_example_has_every_key_of_every_section_and_is_valid_as_it_stands() -> None:
    Config.model_validate(tomllib.loads(example()))
    given = tomllib.loads(uncommented(example()))
    Config.model_validate(given)
    assert list(given) == list(Config.model_fields)
    for section, info in Config.model_fields.items():
        assert info.annotation is not None
        keys = {one.alias or key for key, one in info.annotation.model_fields.items()}
        assert set(given[section]) == keys
    assert set(given["redact"]["rules"][0]) == set(RedactRule.model_fields)


def test_what_is_not_commented_out_in_the_example_is_the_default() -> None:
    assert Config.model_validate(tomllib.loads(example())) == Config()


def test_every_key_says_what_it_means() -> None:
    for section in Config.model_fields.values():
        assert section.annotation is not None
        for key, info in section.annotation.model_fields.items():
            assert info.description, key


def test_the_deployed_configuration_is_the_example() -> None:
    remedy = "cdc-audit config example > deploy/config/cdc-audit.toml"
    assert DEPLOYED.read_text(encoding="utf-8") == example(), remedy


def test_show_says_of_each_value_where_it_comes_from(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    file = tmp_path / "c.toml"
    file.write_text(
        "[source]\nslot = 'from_file'\nname = 'file'\n[batch]\nmax_rows = 7\n[audit]\nschema = 'a'\n"
    )
    secret = tmp_path / "dsn"
    secret.write_text("host=db user=u password=hunter2\n")
    credentials = tmp_path / "credentials"
    credentials.mkdir()
    (credentials / "audit_dsn").write_text("postgresql://w:hunter2@audit/trail")
    found = shown(
        monkeypatch,
        *("--config", str(file), "--slot-name", "from_flag"),
        CDC_AUDIT_SOURCE_NAME="environment",
        CDC_AUDIT_SOURCE_EXCLUDE="a.b, c.d",
        CDC_AUDIT_SOURCE_DSN_FILE=str(secret),
        CREDENTIALS_DIRECTORY=str(credentials),
    )
    assert {key: (one["value"], one["origin"], one["name"]) for key, one in found.items() if one["name"]} == {
        ("source", "name"): ("environment", "environment", "CDC_AUDIT_SOURCE_NAME"),
        ("source", "dsn"): ("host=db user=u password=***", "credential", str(secret)),
        ("source", "slot"): ("from_flag", "flag", "--slot-name"),
        ("source", "exclude"): (["a.b", "c.d"], "environment", "CDC_AUDIT_SOURCE_EXCLUDE"),
        ("audit", "dsn"): ("postgresql://w:***@audit/trail", "credential", str(credentials / "audit_dsn")),
        ("audit", "schema"): ("a", "file", str(file)),
        ("batch", "max_rows"): (7, "file", str(file)),
    }
    assert found["batch", "max_bytes"]["origin"] == "default"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("SOURCE_DSN", "host=db user=u password='hunter2 hunter2' sslpassword=hunter2"),
        ("SOURCE_ADMIN_DSN", "postgres://u:hunt@er2:hunter2@db:5432/d"),
        ("AUDIT_DSN", "postgresql://db/d?user=u&password=hunter2"),
        ("LEDGER_SIGNING_KEY_FILE", "-----BEGIN PRIVATE KEY-----\nhunter2\n-----END PRIVATE KEY-----"),
    ],
)
@pytest.mark.parametrize("arguments", [["--json"], []])
def test_show_prints_no_secret(
    name: str, value: str, arguments: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(f"CDC_AUDIT_{name}", value)
    result = CliRunner().invoke(cdc_audit, ["config", "show", *arguments])
    assert (result.exit_code, "hunter2" in result.output, "***" in result.output) == (0, False, True)


def test_show_without_json_is_a_valid_configuration_file(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    file = tmp_path / "c.toml"
    file.write_text("[[redact.rules]]\ncolumn = 'n\"o'\nmode = 'drop'\n")
    result = CliRunner().invoke(cdc_audit, ["config", "show", "--config", str(file)])
    config = Config.model_validate(tomllib.loads(result.output))
    assert config.redact.rules[0].column == 'n"o'


def test_a_wrong_configuration_is_an_error_without_the_value(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CDC_AUDIT_BATCH_MAX_ROWS", "hunter2")
    result = CliRunner().invoke(cdc_audit, ["config", "show"])
    assert result.exit_code == 1
    assert "[batch] max_rows" in str(result.exception)
    assert "hunter2" not in str(result.exception)


def test_listening_is_switched_off_by_a_word_that_an_environment_variable_can_hold(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    values = shown(monkeypatch, CDC_AUDIT_METRICS_LISTEN="off", CDC_AUDIT_READS_LISTEN="off")
    assert values["metrics", "listen"]["value"] == values["reads", "listen"]["value"] == ""

"""Where settings come from, and what is said when they can't be had."""

from __future__ import annotations

from pathlib import Path

import pytest

from cdc_audit.cli.settings import load_config
from cdc_audit.errors import SettingError


def test_a_configuration_that_cannot_be_looked_at_is_an_error_in_words(tmp_path: Path) -> None:
    """As a file in a folder that is closed to this account; a name that is too long is refused to root, too."""
    with pytest.raises(SettingError, match=r"cannot read .*: File name too long"):
        load_config(tmp_path / ("x" * 300))


def test_a_configuration_that_is_not_there_is_an_error_in_words(tmp_path: Path) -> None:
    with pytest.raises(SettingError, match="does not exist"):
        load_config(tmp_path / "cdc-audit.toml")

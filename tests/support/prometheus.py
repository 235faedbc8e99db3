"""``Prometheus``: a real one on loopback, with the rules of deploy/, asked through its HTTP interface."""

from __future__ import annotations

import json
import re
import shutil
import socket
import subprocess
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import pytest
import yaml

from tests.support.daemon import until

DEPLOY = Path(__file__).parents[2] / "deploy"
_TOOLS = Path(__file__).parents[2] / ".cache/tools"


def program(name: str) -> str:
    """Where prometheus or promtool is: installed, or put there by .ci/run. Skips the test where it is in neither place."""
    found = shutil.which(name) or shutil.which(name, path=str(_TOOLS))
    if found is None:
        pytest.skip(f"{name} is not here: install Debian's package prometheus, or run .ci/run")
    return found


class Prometheus:
    """Scrapes and evaluates every second, and an alert waits for one second instead of minutes; stopped by its ``with``."""

    def __init__(self, folder: Path, targets: Mapping[str, Sequence[str]]) -> None:
        """``targets``: job -> host:port; ``folder`` is new."""
        self._program = program("prometheus")
        self._folder = folder
        folder.mkdir()
        rules = (DEPLOY / "prometheus/rules.yml").read_text()
        (folder / "rules.yml").write_text(re.sub(r"^(\s+for: ).*", r"\g<1>1s", rules, flags=re.MULTILINE))
        config = yaml.safe_load((DEPLOY / "prometheus/prometheus.yml").read_text())
        config["global"] = {"scrape_interval": "1s", "evaluation_interval": "1s"}
        config["scrape_configs"] = [
            {"job_name": job, "static_configs": [{"targets": list(addresses)}]}
            for job, addresses in targets.items()
        ]
        (folder / "prometheus.yml").write_text(yaml.safe_dump(config))
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self._address = f"127.0.0.1:{probe.getsockname()[1]}"
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        with (self._folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [
                    self._program,
                    f"--config.file={self._folder / 'prometheus.yml'}",
                    f"--storage.tsdb.path={self._folder / 'data'}",
                    f"--web.listen-address={self._address}",
                ],
                stdout=log,
                stderr=log,
            )
        try:
            until(self._is_ready, "Prometheus is ready")
        except TimeoutError as error:
            self.stop()
            raise TimeoutError((self._folder / "log").read_text()[-2000:]) from error
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def stop(self) -> None:
        """Stop it; its data stays in the folder."""
        if self._process is not None:
            self._process.terminate()
            self._process.wait()
            self._process = None

    def query(self, expression: str) -> list[tuple[dict[str, str], float]]:
        """Labels and value of each series at this moment. Raises HTTPError for an expression that isn't one."""
        answer = self._get("/api/v1/query", query=expression)
        return [(one["metric"], float(one["value"][1])) for one in answer["result"]]

    def history(
        self, expression: str, since: float
    ) -> list[tuple[dict[str, str], list[tuple[float, float]]]]:
        """Labels and points, as unix seconds and value, of each series from then on."""
        answer = self._get(
            "/api/v1/query_range", query=expression, start=str(since), end=str(time.time()), step="1"
        )
        return [
            (one["metric"], [(at, float(value)) for at, value in one["values"]]) for one in answer["result"]
        ]

    def firing(self) -> set[tuple[str, str]]:
        """Name and instance ("" where it has none) of each alert that fires."""
        alerts = self._get("/api/v1/alerts")["alerts"]
        return {
            (alert["labels"]["alertname"], alert["labels"].get("instance", ""))
            for alert in alerts
            if alert["state"] == "firing"
        }

    def _is_ready(self) -> bool:
        try:
            with urllib.request.urlopen(f"http://{self._address}/-/ready", timeout=5) as answer:
                return bool(answer.status == 200)
        except OSError:
            return False

    def _get(self, path: str, **parameters: str) -> Any:
        question = urllib.parse.urlencode(parameters)
        with urllib.request.urlopen(f"http://{self._address}{path}?{question}", timeout=10) as answer:
            return json.load(answer)["data"]

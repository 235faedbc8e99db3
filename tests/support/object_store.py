"""``ObjectStore``: an S3 server of the run's own (SeaweedFS), with buckets that lock objects.

Seen of SeaweedFS 4.48, on which tests rely: a bucket with Object Lock has versioning and refuses to suspend it; an object in mode
COMPLIANCE can't be deleted by version, its time not be shortened, also by an administrator; GOVERNANCE is bypassed on demand;
overwriting adds a version and deleting without a version adds a marker; versions are listed the newest first.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from cdc_audit.cli.demo.cluster import free_port
from tests.support.daemon import until

_KEY, _SECRET = "test", "test-secret"
_PARTS = ("master", "volume", "filer", "s3")


class ObjectStore:
    """Started by ``start``, removed with all it holds by ``remove``."""

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="cdc-audit-s3-"))
        self._process: subprocess.Popen[bytes] | None = None
        self.port = 0
        self._buckets = 0

    def start(self) -> None:
        """Start, on free ports of the loopback; ready when a request is answered."""
        taken: set[int] = set()
        while len(taken) < 2 * len(_PARTS):
            taken.add(free_port())
        ports = list(taken)
        self.port = ports[2 * _PARTS.index("s3")]
        config = self.folder / "s3.json"
        who = {
            "name": "test",
            "credentials": [{"accessKey": _KEY, "secretKey": _SECRET}],
            "actions": ["Admin"],
        }
        config.write_text(json.dumps({"identities": [who]}))
        options = [
            f"-{part}.port{kind}={ports[2 * at + number]}"
            for at, part in enumerate(_PARTS)
            for number, kind in enumerate(("", ".grpc"))
        ]
        with (self.folder / "log").open("wb") as log:
            self._process = subprocess.Popen(
                [
                    Path(sys.executable).with_name("weed"),
                    "server",
                    f"-dir={self.folder}",
                    "-ip=127.0.0.1",
                    "-ip.bind=127.0.0.1",
                    "-s3",
                    f"-s3.config={config}",
                    "-s3.autoCreateBucket=false",
                    "-s3.port.iceberg=0",
                    "-s3.port.lance=0",
                    f"-s3.localSocket={self.folder}/s3.sock",
                    f"-filer.localSocket={self.folder}/filer.sock",
                    "-master.telemetry=false",
                    "-master.volumeSizeLimitMB=16",
                    "-volume.max=200",
                    "-volume.preStopSeconds=0",
                    *options,
                ],
                stdout=log,
                stderr=log,
                cwd=self.folder,
            )
        until(self._answers, "the object store", timeout=60)

    def remove(self) -> None:
        """Stop it and delete its files."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
        shutil.rmtree(self.folder)

    @property
    def environment(self) -> dict[str, str]:
        """boto3's variables for this server."""
        return {
            "AWS_ENDPOINT_URL_S3": f"http://127.0.0.1:{self.port}",
            "AWS_ACCESS_KEY_ID": _KEY,
            "AWS_SECRET_ACCESS_KEY": _SECRET,
            "AWS_REGION": "us-east-1",
            "AWS_EC2_METADATA_DISABLED": "true",
        }

    def client(self) -> Any:
        """An administrator's client."""
        return boto3.session.Session().client(
            "s3",
            endpoint_url=f"http://127.0.0.1:{self.port}",
            aws_access_key_id=_KEY,
            aws_secret_access_key=_SECRET,
            region_name="us-east-1",
            config=Config(retries={"total_max_attempts": 2}),
        )

    def bucket(self, *, locks: bool = True) -> str:
        """The name of a fresh bucket."""
        self._buckets += 1
        name = f"bucket-{os.getpid()}-{self._buckets}"
        self.client().create_bucket(Bucket=name, ObjectLockEnabledForBucket=locks)
        return name

    def keys(self, bucket: str) -> list[str]:
        """Of all objects that are not hidden."""
        found = self.client().list_objects_v2(Bucket=bucket)
        return [one["Key"] for one in found.get("Contents", [])]

    def _answers(self) -> bool:
        assert self._process is not None
        if self._process.poll() is not None:
            raise RuntimeError((self.folder / "log").read_text()[-2000:])
        try:
            self.client().create_bucket(Bucket="ready")
        except (BotoCoreError, ClientError):
            return False
        return True

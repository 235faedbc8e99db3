"""Archives as files that DuckDB reads, of which it fetches only the pieces that a question needs: footers, Bloom filters, columns.

One file system for folders and buckets: names below the store, sizes as the manifests say. duckdb and fsspec (extra ``cold``) are
imported on first use.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any

from cdc_audit.errors import CdcAuditError, CheckFailedError, SettingError
from cdc_audit.postgres import named_sql
from cdc_audit.trail.archive_store import Store

_SQL = named_sql("cdc_audit.trail", "sql/tiers.sql")
PROTOCOL = "archive"
_PIECE = 1 << 16
_MEMORY = "512MB"


def require_duckdb() -> None:
    """Raises SettingError, with the remedy, where what reads archives isn't installed."""
    if any(importlib.util.find_spec(name) is None for name in ("duckdb", "fsspec")):
        raise SettingError(
            "reading archives needs duckdb and fsspec, which are not installed",
            remedy="pip install 'cdc-audit[cold]'",
        )


@contextmanager
def engine(store: Store, sizes: Mapping[str, int]) -> Iterator[Any]:
    """A DuckDB connection that reads ``archive://NAME`` of the store; ``sizes`` may grow. Only the store is within its reach.

    While it is used, what goes wrong is raised as the store does, and as CheckFailedError where a file is not what it should be.
    """
    import duckdb

    files = _file_system(store, sizes)
    with duckdb.connect(config={"memory_limit": _MEMORY, "threads": 2}) as connection:
        connection.register_filesystem(files)
        connection.execute(_SQL["utc"])
        try:
            yield connection
        except duckdb.Error as error:
            if isinstance(files.failure, CdcAuditError):
                raise files.failure from error
            what = (
                "is not here"
                if isinstance(files.failure, FileNotFoundError)
                else f"can't be read ({type(error).__name__})"
            )
            raise CheckFailedError(
                f"archive {store.name}: {files.asked} {what}",
                remedy="see what is wrong: cdc-audit archive verify",
            ) from None


def _file_system(store: Store, sizes: Mapping[str, int]) -> Any:
    from fsspec.spec import AbstractBufferedFile, AbstractFileSystem

    class Files(AbstractFileSystem):  # type: ignore[misc]
        """The store, to be read. ``asked`` is the name that was opened last, ``failure`` why that failed."""

        protocol = PROTOCOL
        cachable = False
        asked = ""
        failure: Exception | None = None

        def info(self, path: str, **_: object) -> dict[str, object]:
            name = self._strip_protocol(path)
            return {"name": name, "size": sizes[name], "type": "file"}

        def modified(self, path: str) -> datetime:  # DuckDB asks; archives don't change
            del path
            return datetime.fromtimestamp(0, UTC)

        def _open(self, path: str, mode: str = "rb", **_: object) -> Any:
            return File(self, path, mode, block_size=_PIECE, cache_type="none", size=sizes[path])

    class File(AbstractBufferedFile):  # type: ignore[misc]
        """A file of it."""

        def _fetch_range(self, start: int, end: int) -> bytes:
            self.fs.asked = self.path
            try:
                return store.piece(self.path, start, end)
            except (CdcAuditError, OSError) as error:
                self.fs.failure = error
                raise

    return Files()

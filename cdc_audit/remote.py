"""Connections to what is no database: an HTTPS endpoint, an S3 bucket.

Errors say what happened without URLs, tokens or credentials: whoever asks knows where. S3 needs boto3 (extra ``archive``), which
is imported on first use; endpoint, region and credentials are found by its own means (``AWS_*``, profiles, instance roles).
"""

from __future__ import annotations

import asyncio
import importlib.util
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.client import HTTPException, HTTPResponse
from pathlib import Path
from typing import Any
from urllib.error import HTTPError, URLError
from urllib.request import (
    HTTPRedirectHandler,
    OpenerDirector,
    ProxyHandler,
    Request,
    build_opener,
    getproxies,
)

from cdc_audit.errors import CdcAuditError, SettingError, UnavailableError

TIMEOUT = 10.0


class RefusedError(UnavailableError):
    """It answered, and the answer was no. ``code``: the HTTP status, or S3's error code."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


class _NoRedirect(HTTPRedirectHandler):
    """A token goes nowhere else than where it was meant to go."""

    def redirect_request(self, *_: object) -> None:
        return None


@contextmanager
def http_answer(
    url: str, *, method: str, token_file: str = "", body: bytes | None = None
) -> Iterator[HTTPResponse]:
    """The answer to one request, if its status is 2xx. ``token_file``'s text is sent as a bearer token; certificates are checked.

    Raises RefusedError for any other status, redirections too; UnavailableError if there is no answer (also while it is being
    read) and if the token can't be read.
    """
    request = Request(url, data=body, method=method)  # noqa: S310 - the scheme was checked by model.anchor
    request.add_header("User-Agent", "cdc-audit")
    if body is not None:
        request.add_header("Content-Type", "application/json")
    if token_file:
        request.add_unredirected_header("Authorization", f"Bearer {_token(token_file)}")
    try:
        with _opener(url).open(request, timeout=TIMEOUT) as answer:
            yield answer
    except HTTPError as error:
        error.close()
        raise RefusedError(str(error.code), f"it answered {error.code}") from None
    except (OSError, HTTPException) as error:
        raise UnavailableError(_no_answer(error)) from None


def _opener(url: str) -> OpenerDirector:
    proxies = getproxies() if url.startswith("https:") else {}
    return build_opener(ProxyHandler(proxies), _NoRedirect)


def _token(file: str) -> str:
    # The name isn't shown: it could be the token itself, set by mistake.
    try:
        token = Path(file).read_text(encoding="ascii").strip()
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or "not a text file"
        raise UnavailableError(f"the token file can't be read: {reason}") from None
    if not token.isprintable() or not token:
        raise UnavailableError("the token file does not hold one line of text")
    return token


def _no_answer(error: OSError | HTTPException) -> str:
    cause = error.reason if isinstance(error, URLError) else error
    if isinstance(cause, TimeoutError):
        return f"no answer within {TIMEOUT:.0f} s"
    return getattr(cause, "strerror", None) or type(cause).__name__


def require_boto3() -> None:
    """Raises SettingError, with the remedy, where boto3 isn't installed."""
    if importlib.util.find_spec("boto3") is None:
        raise SettingError(
            "s3:// needs boto3, which is not installed", remedy="pip install 'cdc-audit[archive]'"
        )


def s3_client(*, attempts: int) -> Any:
    """A client of S3, for several threads; a request is tried so many times. Raises SettingError, UnavailableError."""
    require_boto3()
    import boto3.session
    from botocore.config import Config

    settings = Config(
        connect_timeout=TIMEOUT / 2, read_timeout=TIMEOUT / 2, retries={"total_max_attempts": attempts}
    )
    with s3_errors():
        return boto3.session.Session().client("s3", config=settings)


@contextmanager
def s3_errors() -> Iterator[None]:
    """Turn boto3's errors into RefusedError and UnavailableError."""
    from botocore.exceptions import BotoCoreError, ClientError

    try:
        yield
    except ClientError as error:
        code = str(error.response.get("Error", {}).get("Code", "unknown"))
        raise RefusedError(code, f"{error.operation_name} was refused: {code}") from None
    except (
        BotoCoreError,
        ValueError,
        AttributeError,
    ) as error:  # the last: an error without a body, which its parser trips over
        raise UnavailableError(f"S3: {type(error).__name__}") from None


async def attempt(work: Callable[[], None], name: str) -> str | None:
    """Do it in a thread of its own; why it failed, None if it did not. Of errors that nobody foresaw only the type is told: their
    text could hold anything.

    The thread is a daemon: one that hangs keeps neither loop nor process. Whoever stops waiting lets it go on. Raises
    RuntimeError where no more threads are to be had.
    """
    loop = asyncio.get_running_loop()
    done: asyncio.Future[str | None] = loop.create_future()

    def settle(reason: str | None) -> None:
        if not done.done():
            done.set_result(reason)

    def run() -> None:
        reason = _failure(work)
        try:
            loop.call_soon_threadsafe(settle, reason)
        except RuntimeError:  # the loop is closed: nobody waits any more
            pass

    threading.Thread(target=run, name=name, daemon=True).start()
    return await done


def _failure(work: Callable[[], None]) -> str | None:
    try:
        work()
    except CdcAuditError as error:
        return error.message
    except OSError as error:
        return error.strerror or type(error).__name__
    except Exception as error:
        return type(error).__name__
    return None

"""One HTTP transfer into a file, going on where an earlier one was cut."""

from __future__ import annotations

import contextlib
import http.client
import os
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any

from convexport.runtime.errors import MachineError
from convexport.runtime.files import storage_errors
from convexport.runtime.sniff import is_html

Report = Callable[[str], None]

# For the connection and for each read, not for the whole.
_TIMEOUT_S = 10
_BLOCK = 1 << 20
# A server that never stops must not fill the disk; no convnet comes near.
_MAX_BYTES = 4 << 30
_LOOPBACK = ("127.0.0.1", "localhost", "::1")


class CutError(Exception):
    """No connection, or one that ended early; another attempt may go on from there."""


def transfer(url: str, part: Path, report: Report) -> None:
    """Bring ``part`` to the full length of what lies at ``url``.

    Raises:
        CutError: the connection failed, broke or timed out; ``part`` holds what came.
        MachineError: E0421, the server refuses or is not to be trusted; E0422, it sends a page.
        StorageError: E0801, the disk is full or does not let us.
    """
    have = part.stat().st_size if part.is_file() else 0
    with _opened(url, have) as response:
        if response is None:
            return
        have = have if _continues(response, have) else 0
        total = _total(response, have)
        report(f"fetching {url} ({_size(total)}{f', from {_size(have)} on' if have else ''})")
        block = _read(response)
        # Before anything is overwritten: the page of a hotel's network is no file.
        if have == 0 and is_html(block):
            raise MachineError(
                "E0422",
                "a web page came instead of the weights",
                where=url,
                why="a login page of this network, or a proxy, answered for the publisher",
                hint="open a web page in a browser here, or fetch the file on another machine",
            )
        with storage_errors(part):
            file = part.open("ab" if have else "wb")
        with file:
            written = _copy(response, block, file, have)
    if total is not None and written < total:
        raise CutError(f"the transfer was cut after {written:,} of {total:,} bytes")


def _copy(response: Any, block: bytes, file: IO[bytes], have: int) -> int:
    path = Path(file.name)
    while block:
        have += len(block)
        if have > _MAX_BYTES:
            raise MachineError(
                "E0421", f"the server sends more than {_MAX_BYTES:,} bytes", where=response.url
            )
        with storage_errors(path):
            file.write(block)
        block = _read(response)
    with storage_errors(path):
        file.flush()
        os.fsync(file.fileno())
    return have


def _read(response: Any) -> bytes:
    try:
        block: bytes = response.read(_BLOCK)
    except (OSError, http.client.HTTPException) as error:
        raise CutError(f"the connection broke: {error}") from error
    return block


@contextlib.contextmanager
def _opened(url: str, have: int) -> Iterator[Any]:
    """The response from byte ``have`` on, or None where the file has no more than that."""
    _check_scheme(url)
    request = urllib.request.Request(url, headers={"User-Agent": "convexport"})
    if have:
        request.add_header("Range", f"bytes={have}-")
    try:
        response = urllib.request.build_opener(_Redirects).open(request, timeout=_TIMEOUT_S)
    except urllib.error.HTTPError as error:
        error.close()
        if have and error.code == http.HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:
            yield None
            return
        raise MachineError(
            "E0421", f"the server answers {error.code} {error.reason}", where=url
        ) from error
    except (OSError, http.client.HTTPException) as error:
        raise CutError(f"no connection: {getattr(error, 'reason', error)}") from error
    with response:
        yield response


class _Redirects(urllib.request.HTTPRedirectHandler):
    """Redirects may not leave https."""

    def redirect_request(self, *args: Any) -> urllib.request.Request | None:
        """As in the base class: the second argument is the response, the last where it leads."""
        try:
            _check_scheme(args[-1])
        except MachineError:
            args[1].close()
            raise
        return super().redirect_request(*args)


def _check_scheme(url: str) -> None:
    parts = urllib.parse.urlsplit(url)
    if parts.scheme != "https" and not (parts.scheme == "http" and parts.hostname in _LOOPBACK):
        raise MachineError(
            "E0421", f"refusing to fetch over {parts.scheme}, which anybody may alter", where=url
        )


def _continues(response: Any, have: int) -> bool:
    begins = str(response.headers.get("Content-Range", "")).startswith(f"bytes {have}-")
    return bool(have and response.status == http.HTTPStatus.PARTIAL_CONTENT and begins)


def _total(response: Any, have: int) -> int | None:
    length = str(response.headers.get("Content-Length", ""))
    return have + int(length) if length.isdecimal() else None


def _size(count: int | None) -> str:
    return "size not told" if count is None else f"{count / 1e6:.1f} MB"

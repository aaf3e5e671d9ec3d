"""Fetching from a server on this machine that behaves, and that does not."""

from __future__ import annotations

import contextlib
import hashlib
import http.server
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from convexport.architectures import transfer
from convexport.architectures.download import obtain
from convexport.architectures.published import PublishedWeights
from convexport.runtime.errors import ConvexportError, MachineError, StorageError

DATA = b"PK\x03\x04" + bytes(range(256)) * 4000
HASH = hashlib.sha256(DATA).hexdigest()
PAGE = b"<!DOCTYPE html><html><title>Log in to the hotel</title></html>"


class Server(http.server.ThreadingHTTPServer):
    """Serves DATA; how badly is set by a test."""

    daemon_threads = False
    body = DATA
    ranges = True
    status = 200
    location = ""
    # How many bytes the next answers send before they hang up; then all of them.
    cuts: tuple[int, ...] = ()
    asked: list[str | None]

    def weights(self, sha256: str = HASH) -> PublishedWeights:
        return PublishedWeights(
            name="TEST",
            url=f"http://127.0.0.1:{self.server_port}/net-{HASH[:8]}.pth",
            sha256=sha256,
            licence="BSD-3-Clause",
            top1=1.0,
            top5=2.0,
            source="test",
        )


class Handler(http.server.BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        server, asked = self.server, self.headers.get("Range")
        server.asked.append(asked)
        begin = int(asked.removeprefix("bytes=").rstrip("-")) if asked and server.ranges else 0
        if begin >= len(server.body):
            self.send_error(416)
            return
        self.send_response(server.status if server.status != 200 else 206 if begin else 200)
        if begin:
            end = len(server.body) - 1
            self.send_header("Content-Range", f"bytes {begin}-{end}/{len(server.body)}")
        if server.location:
            self.send_header("Location", server.location)
        self.send_header("Content-Length", str(len(server.body) - begin))
        self.end_headers()
        body = server.body[begin:]
        if server.cuts:
            body, server.cuts = body[: server.cuts[0]], server.cuts[1:]
        with contextlib.suppress(ConnectionError):  # hung up on, as one test means to
            self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with Server(("127.0.0.1", 0), Handler) as running:
        running.asked = []
        thread = threading.Thread(target=running.serve_forever, args=(0.01,))
        thread.start()
        yield running
        running.shutdown()
        thread.join()


def fetch(server: Server, cache: Path, *, sha256: str = HASH, offline: bool = False) -> Path:
    weights = server.weights(sha256)
    path, digest = obtain(weights, cache_dir=cache, offline=offline, report=lambda _: None)
    assert path.read_bytes() == DATA
    assert digest == HASH
    return path


def refusal(server: Server, cache: Path, **options: Any) -> ConvexportError:
    with pytest.raises(ConvexportError) as caught:
        fetch(server, cache, **options)
    assert not list((cache / "weights").glob("*.pth")), "half a file stands in the cache"
    return caught.value


def part(cache: Path, data: bytes) -> Path:
    path = cache / "weights" / f"net-{HASH[:8]}.pth.part"
    path.parent.mkdir(parents=True)
    path.write_bytes(data)
    return path


@pytest.mark.parametrize("sha256", [HASH, HASH[:8]])
def test_a_file_is_fetched_once(server: Server, tmp_path: Path, sha256: str) -> None:
    path = fetch(server, tmp_path, sha256=sha256)
    assert path.parent == tmp_path / "weights"
    assert path.with_name(f"{path.name}.sha256").read_text() == f"{HASH}\n"
    fetch(server, tmp_path, sha256=sha256)
    assert server.asked == [None]


def test_what_was_changed_in_the_cache_is_fetched_again(server: Server, tmp_path: Path) -> None:
    path = fetch(server, tmp_path)
    path.write_bytes(DATA[:-1] + b"!")
    fetch(server, tmp_path)
    assert len(server.asked) == 2


def test_the_recorded_hash_counts_where_only_a_prefix_was_published(
    server: Server, tmp_path: Path
) -> None:
    path = fetch(server, tmp_path, sha256=HASH[:8])
    path.with_name(f"{path.name}.sha256").write_text(HASH[:8] + "0" * 56 + "\n")
    fetch(server, tmp_path, sha256=HASH[:8])
    assert len(server.asked) == 2


def test_a_file_put_into_the_cache_by_hand_is_verified_and_used(
    server: Server, tmp_path: Path
) -> None:
    part(tmp_path, DATA).rename(tmp_path / "weights" / f"net-{HASH[:8]}.pth")
    fetch(server, tmp_path, offline=True)
    assert server.asked == []


def test_a_cut_transfer_goes_on_where_it_stopped(server: Server, tmp_path: Path) -> None:
    server.cuts = (1000,)
    fetch(server, tmp_path)
    assert server.asked == [None, "bytes=1000-"]


def test_a_transfer_cut_twice_fails_and_the_next_run_goes_on(
    server: Server, tmp_path: Path
) -> None:
    server.cuts = (1000, 500)
    error = refusal(server, tmp_path)
    assert (error.code, error.exit_code) == ("E0421", 4)
    assert "1,500 of" in error.what
    fetch(server, tmp_path)
    assert server.asked[-1] == "bytes=1500-"
    assert not list(tmp_path.rglob("*.part"))


def test_a_server_without_ranges_starts_again(server: Server, tmp_path: Path) -> None:
    server.ranges = False
    part(tmp_path, DATA[:777])
    fetch(server, tmp_path)
    assert server.asked == ["bytes=777-"]


def test_a_whole_part_needs_nothing_more(server: Server, tmp_path: Path) -> None:
    part(tmp_path, DATA)
    fetch(server, tmp_path)
    assert server.asked == [f"bytes={len(DATA)}-"]


@pytest.mark.parametrize("stale", [b"another file's beginning", DATA + b"too long"])
def test_a_part_of_something_else_is_thrown_away(
    server: Server, tmp_path: Path, stale: bytes
) -> None:
    part(tmp_path, stale)
    fetch(server, tmp_path)
    assert server.asked == [f"bytes={len(stale)}-", None]


@pytest.mark.parametrize("sha256", ["0" * 64, "0" * 8])
def test_another_file_than_published_is_refused(
    server: Server, tmp_path: Path, sha256: str
) -> None:
    error = refusal(server, tmp_path, sha256=sha256)
    assert (error.code, error.exit_code) == ("E0423", 4)
    assert HASH in error.why
    assert not list(tmp_path.rglob("*.part"))


@pytest.mark.parametrize("begun", [b"", DATA[:777]])
def test_a_login_page_is_recognised_and_harms_nothing(
    server: Server, tmp_path: Path, begun: bytes
) -> None:
    server.body, server.ranges = PAGE, False
    kept = part(tmp_path, begun)
    error = refusal(server, tmp_path)
    assert (error.code, error.exit_code) == ("E0422", 4)
    assert "web page" in error.what
    assert kept.read_bytes() == begun


@pytest.mark.parametrize("status", [401, 404, 503])
def test_what_the_server_refuses_is_said(server: Server, tmp_path: Path, status: int) -> None:
    server.status = status
    error = refusal(server, tmp_path)
    assert (error.code, error.exit_code) == ("E0421", 4)
    assert str(status) in error.what


@pytest.mark.parametrize("location", ["http://example.com/net.pth", "file:///etc/passwd"])
def test_a_redirect_to_an_open_line_is_refused(
    server: Server, tmp_path: Path, location: str
) -> None:
    server.status, server.location = 302, location
    error = refusal(server, tmp_path)
    assert error.code == "E0421"
    assert "refus" in error.what or "302" in error.what


def test_an_endless_answer_is_cut_off(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transfer, "_MAX_BYTES", 1000)
    assert refusal(server, tmp_path).code == "E0421"


def test_a_server_that_is_not_there(server: Server, tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}/net.pth"
        weights = PublishedWeights(
            name="X", url=url, sha256=HASH, licence="", top1=0, top5=0, source=""
        )
        with pytest.raises(MachineError) as caught:
            obtain(weights, cache_dir=tmp_path, offline=False, report=lambda _: None)
    assert caught.value.code == "E0421"
    assert "no connection" in caught.value.what
    assert "net.pth" in caught.value.hint


def test_offline_opens_no_socket(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise AssertionError("a socket was opened")

    monkeypatch.setattr(socket, "socket", refuse)
    error = refusal(server, tmp_path, offline=True)
    assert (error.code, error.exit_code) == ("E0420", 4)
    assert server.weights().url in error.hint
    assert not list(tmp_path.iterdir()), "offline must not write"


@pytest.mark.parametrize("offline", [False, True])
def test_what_cannot_be_verified_is_not_fetched_nor_taken_from_the_cache(
    server: Server, tmp_path: Path, offline: bool
) -> None:
    kept = part(tmp_path, DATA).rename(tmp_path / "weights" / f"net-{HASH[:8]}.pth")
    with pytest.raises(MachineError) as caught:
        fetch(server, tmp_path, sha256="", offline=offline)
    assert (caught.value.code, caught.value.exit_code) == ("E0425", 4)
    assert "its hash is not known here" in caught.value.what
    assert caught.value.where == server.weights().url
    assert "--weights FILE" in caught.value.hint
    assert (server.asked, list(kept.parent.iterdir())) == ([], [kept])


def test_weights_of_hugging_face_are_kept_apart() -> None:
    repository = "https://huggingface.co/timm/inception_v4.tf_in1k"
    weights = PublishedWeights(
        name="X",
        url=f"{repository}/resolve/main/model.safetensors",
        sha256="",
        licence="",
        top1=0,
        top5=0,
        source="",
    )
    assert weights.file_name == "inception_v4.tf_in1k.safetensors"


def test_a_cache_that_cannot_be_written(server: Server, tmp_path: Path) -> None:
    (tmp_path / "weights").write_text("a file is in the way")
    with pytest.raises(StorageError):
        fetch(server, tmp_path)


def test_two_at_once_fetch_once(server: Server, tmp_path: Path) -> None:
    threads = [threading.Thread(target=fetch, args=(server, tmp_path)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert server.asked == [None]

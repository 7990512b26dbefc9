"""Downloads against a real local server: the cache gets whole files or none."""

from __future__ import annotations

import hashlib
import io
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import torch

import drc
from drc.core.errors import WeightsError
from drc.networks import download, registry
from drc.networks.download import DownloadError, fetch
from drc.networks.registry import Preset, WeightsFile, get_preset, register
from drc.networks.weights import locate

NAME = "test_downloaded"


class Server(ThreadingHTTPServer):
    """Serves one checkpoint, in the ways that the first part of the path names."""

    daemon_threads = True

    def __init__(self, content: bytes) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.content = content
        self.requests = 0
        self.reached_half = threading.Event()
        self.stop_stalling = threading.Event()
        threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.02}).start()

    def url(self, way: str) -> str:
        return f"http://127.0.0.1:{self.server_port}/{way}/published_{way}.pth"

    def close(self) -> None:
        self.stop_stalling.set()
        self.shutdown()
        self.server_close()


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        self.server.requests += 1
        content = self.server.content
        way = self.path.split("/")[1]
        half = content[: len(content) // 2]
        if way == "missing":
            self.send_error(404)
        elif way == "broken":
            self.send_error(503)
        elif way == "moved":
            self.send_response(302)
            self.send_header("Location", self.server.url("whole"))
            self.end_headers()
        elif way == "login":
            self._answer(b"<html>Sign in to this network</html>")
        elif way == "short" or (way == "flaky" and self.server.requests == 1):
            self._answer(half, length=len(content))
        elif way == "chunked":
            self.send_response(200)
            self.send_header("Transfer-Encoding", "chunked")
            self.end_headers()
            self.wfile.write(b"%x\r\n%s\r\n" % (len(content), half))
        elif way == "silent":
            self.server.stop_stalling.wait(600)
        elif way == "stalling":
            self._answer(half, length=len(content))
            self.wfile.flush()
            self.server.reached_half.set()
            self.server.stop_stalling.wait(600)
        elif way == "unsized":
            self.send_response(200)
            self.end_headers()
            self.wfile.write(content)
        else:
            self._answer(content)

    def _answer(self, body: bytes, length: int | None = None) -> None:
        self.send_response(200)
        self.send_header("Content-Length", str(len(body) if length is None else length))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Keep the tests' output clean."""


@pytest.fixture(scope="module")
def checkpoint() -> bytes:
    torch.manual_seed(2)
    buffer = io.BytesIO()
    torch.save(drc.create_model("drn_tiny").state_dict(), buffer)
    return buffer.getvalue()


@pytest.fixture
def server(checkpoint: bytes) -> Iterator[Server]:
    server = Server(checkpoint)
    yield server
    server.close()


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty torch hub cache, and a registry that forgets the presets of the test."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.setattr(download, "_RETRIES", 0)
    monkeypatch.setattr(registry, "_PRESETS", {n: get_preset(n) for n in drc.list_models()})
    return tmp_path / "torch" / "hub" / "checkpoints"


def _publish(url: str, sha256: str | None = None) -> Preset:
    tiny = get_preset("drn_tiny")
    register(Preset(NAME, tiny.build, tiny.arguments, 255.0, {4: WeightsFile(url, sha256)}))
    return get_preset(NAME)


def _fails(url: str, reason: str, cache: Path, sha256: str | None = None) -> None:
    """The download ends in one line that gives the reason and the way out, and leaves no file."""
    preset = _publish(url, sha256)
    with pytest.raises(WeightsError) as error:
        drc.create_model(NAME, weights="default")
    filename = preset.weights[4].filename
    assert str(error.value) == (
        f"cannot fetch {filename} for {NAME} x4 from {url} ({reason}); "
        "download it elsewhere and pass --weights FILE, or --weights none for initial weights"
    )
    assert not cache.exists() or list(cache.iterdir()) == []


@pytest.mark.parametrize("way", ["whole", "moved", "unsized"])
def test_a_published_file_is_fetched_once(
    server: Server, cache: Path, checkpoint: bytes, way: str
) -> None:
    preset = _publish(server.url(way), hashlib.sha256(checkpoint).hexdigest().upper())
    seen: list[tuple[str, int, int]] = []
    path = locate(
        preset, 4, "default", lambda what, done, total, _: seen.append((what, done, total))
    )
    assert path == cache / f"published_{way}.pth"
    assert path.read_bytes() == checkpoint
    what, done, total = seen[-1]
    assert what == f"download published_{way}.pth" and done >= len(checkpoint)
    assert total == (0 if way == "unsized" else done)
    assert list(cache.iterdir()) == [path]

    requests = server.requests
    server.close()
    assert locate(preset, 4, None) == path
    model = drc.create_model(NAME, weights="default")
    assert server.requests == requests
    expected = torch.load(path, weights_only=True)
    assert all(torch.equal(v, expected[k]) for k, v in model.state_dict().items())


def test_another_checksum_removes_the_file(server: Server, cache: Path, checkpoint: bytes) -> None:
    wanted = "A" * 64
    reason = f"its SHA-256 is not {wanted.lower()}: damaged or replaced"
    _fails(server.url("whole"), reason, cache, wanted)


def test_without_a_published_checksum_the_first_one_counts(
    server: Server, cache: Path, checkpoint: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    preset = _publish(server.url("whole"))
    path = locate(preset, 4, "default")
    assert path is not None
    kept = path.with_name(f"{path.name}.sha256")
    found = hashlib.sha256(checkpoint).hexdigest()
    assert kept.read_text() == f"{found}  {path.name}\n"
    (line,) = caplog.messages
    assert found in line and str(kept) in line
    assert path.stat().st_mode == kept.stat().st_mode

    other = io.BytesIO()
    torch.save({"weight": torch.zeros(3)}, other)
    path.write_bytes(other.getvalue())
    with pytest.raises(WeightsError, match=rf"damaged: its SHA-256 is not {found}; delete it"):
        locate(preset, 4, "default")
    path.unlink()
    server.content = other.getvalue()
    with pytest.raises(WeightsError, match=rf"its SHA-256 is not {found}: damaged or replaced"):
        locate(preset, 4, "default")
    assert list(cache.iterdir()) == [kept]
    server.content = checkpoint
    assert locate(preset, 4, "default") == path and len(caplog.messages) == 1


def test_a_download_that_fails_is_tried_again(
    server: Server, cache: Path, checkpoint: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(download, "_RETRIES", 1)
    path = locate(_publish(server.url("flaky")), 4, "default")
    assert path is not None and path.read_bytes() == checkpoint and server.requests == 2


def test_downloads_at_the_same_time_do_not_disturb_each_other(
    server: Server, cache: Path, checkpoint: bytes
) -> None:
    target = cache / "w.pth"
    with ThreadPoolExecutor(4) as pool:
        for done in [pool.submit(fetch, server.url("whole"), target) for _ in range(8)]:
            done.result()
    assert target.read_bytes() == checkpoint
    assert sorted(x.name for x in cache.iterdir()) == ["w.pth", "w.pth.sha256"]


def test_server_errors_are_given(server: Server, cache: Path) -> None:
    _fails(server.url("missing"), "the server answered 404 Not Found", cache)


def test_an_overloaded_server_is_given(server: Server, cache: Path) -> None:
    _fails(server.url("broken"), "the server answered 503 Service Unavailable", cache)


@pytest.mark.parametrize("way", ["short", "chunked"])
def test_a_body_cut_short_leaves_no_file(server: Server, cache: Path, way: str) -> None:
    reason = "the connection ended before the file was complete"
    _fails(server.url(way), reason, cache)


def test_a_login_page_is_no_checkpoint(server: Server, cache: Path) -> None:
    reason = "what came is not a checkpoint that drc reads"
    _fails(server.url("login"), reason, cache)


def test_without_a_server_the_line_says_what_to_fetch(cache: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    _fails(f"http://127.0.0.1:{port}/drn.pt", "connection refused", cache)


def test_without_a_name_server_the_line_says_what_to_fetch(cache: Path) -> None:
    preset = _publish("http://no-such-host.invalid/drn.pt")
    reason = r"\(no network, or no such host\)"
    with pytest.raises(WeightsError, match=rf"{reason}; download it .*--weights FILE") as error:
        locate(preset, 4, "default")
    assert "\n" not in str(error.value) and "Errno" not in str(error.value)


@pytest.mark.parametrize("way", ["silent", "stalling"])
def test_a_silent_server_ends_in_a_timeout(
    server: Server, cache: Path, tmp_path: Path, way: str
) -> None:
    target = tmp_path / "cache" / "w.pth"
    with pytest.raises(DownloadError, match="did not answer in time"):
        fetch(server.url(way), target, timeout=0.3)
    assert list(target.parent.iterdir()) == []


def test_a_cache_that_cannot_be_written_is_named(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cache: Path
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "file"))
    with pytest.raises(WeightsError, match=r"cannot write .*not a directory.*TORCH_HOME") as error:
        locate(_publish(server.url("whole")), 4, "default")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("ending", [signal.SIGINT, signal.SIGKILL])
def test_an_interrupted_download_is_never_taken_for_the_file(
    server: Server, tmp_path: Path, checkpoint: bytes, ending: signal.Signals
) -> None:
    target = tmp_path / "cache" / "w.pth"
    program = (
        # A shell that starts the tests in the background makes their children ignore Ctrl-C.
        "import signal, sys; signal.signal(signal.SIGINT, signal.default_int_handler); "
        "from pathlib import Path; from drc.networks.download import fetch; "
        "fetch(sys.argv[1], Path(sys.argv[2]))"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", program, server.url("stalling"), str(target)],
        env={**os.environ, "no_proxy": "127.0.0.1"},
        stderr=subprocess.PIPE,
    )
    try:
        assert server.reached_half.wait(600)
        assert not target.exists()
        process.send_signal(ending)
        process.communicate(timeout=600)
    finally:
        process.kill()
    assert process.returncode != 0
    assert not target.exists()
    if ending == signal.SIGINT:
        assert list(target.parent.iterdir()) == []
    fetch(server.url("whole"), target)
    assert target.read_bytes() == checkpoint


def test_a_cached_file_that_is_damaged_is_named(cache: Path) -> None:
    preset = _publish("http://127.0.0.1:9/never_asked.pth")
    cache.mkdir(parents=True)
    (cache / "never_asked.pth").write_bytes(b"half a fi")
    with pytest.raises(WeightsError, match=r"never_asked\.pth is corrupt.*; delete it, and drc"):
        locate(preset, 4, "default")


def test_the_published_networks_name_their_official_files() -> None:
    files = {
        (name, scale): str(source.url)
        for name in drc.list_models()
        for scale, source in get_preset(name).weights.items()
        if source.packaged is None
    }
    drn = "https://github.com/guoyongcs/DRN/releases/download/v0.1"
    drc_release = "https://github.com/guoyongcs/DRC/releases/download/v1.1"
    assert files["drn_s", 4] == f"{drn}/DRNS4x.pt"
    assert files["drn_l", 8] == f"{drn}/DRNL8x.pt"
    assert files["drn_s30", 4] == f"{drc_release}/DRNS_4x_Prune_30.pt"
    assert files["drn_s70", 8] == f"{drc_release}/DRNS_8x_Prune_70.pt"

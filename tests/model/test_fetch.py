"""download_mask.py against a real server on this machine, one that also breaks."""

import hashlib
import io
import signal
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
import torch
from scripts import Forked, die_at_change, run_script

pytestmark = pytest.mark.run


@pytest.fixture
def mask(tmp_path) -> bytes:
    torch.save({"w": torch.arange(400_000) % 5 < 4}, tmp_path / "mask.pt")
    return (tmp_path / "mask.pt").read_bytes()


def floats() -> bytes:
    content = io.BytesIO()
    torch.save({"w": torch.tensor([0.5, float("nan")])}, content)
    return content.getvalue()


@contextmanager
def server(content: bytes, breaks: int = 0, ranges: bool = True, port: int = 0):
    """Serves `content` under /tofu_0.8.pt; the first `breaks` answers end in the middle. Yields its address
    and its log."""
    seen, etag = [], hashlib.sha256(content).hexdigest()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            seen.append(self.headers.get("Range"))
            if self.path != "/tofu_0.8.pt":
                return self.send_error(404)
            same = self.headers.get("If-Range") == etag
            start = (
                int(self.headers["Range"].removeprefix("bytes=").rstrip("-"))
                if ranges and self.headers.get("Range") and same
                else 0
            )
            if start >= len(content):
                self.send_response(416)
                self.send_header("Content-Range", f"bytes */{len(content)}")
                self.send_header("Content-Length", "0")
                return self.end_headers()
            body = content[start:]
            self.send_response(206 if start else 200)
            self.send_header("ETag", etag)
            if start:
                self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body[: len(body) // 2] if len(seen) <= breaks else body)
            self.close_connection = True

        def log_message(self, *words):
            pass

    running = ThreadingHTTPServer(("127.0.0.1", port), Handler)
    thread = threading.Thread(target=running.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{running.server_port}", seen
    finally:
        running.shutdown()
        running.server_close()
        thread.join()


def fetch(tmp_path, *words):
    return run_script("download_mask", "tofu", "0.8", "--out", tmp_path / "mask", *words)


def test_a_broken_connection_is_resumed(mask, tmp_path):
    with server(mask, breaks=2) as (address, seen):
        done = fetch(tmp_path, "--source", address, "--sha256", hashlib.sha256(mask).hexdigest())
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "mask/tofu_0.8.pt").read_bytes() == mask
    assert "0.8000 of the weights" in done.stdout
    assert seen[0] is None
    assert all(asked.startswith("bytes=") for asked in seen[1:])
    assert len(seen) == 3
    assert [path.name for path in (tmp_path / "mask").iterdir()] == ["tofu_0.8.pt"]


def test_a_server_that_knows_no_ranges_gives_it_all_again(mask, tmp_path):
    with server(mask, breaks=1, ranges=False) as (address, _):
        assert fetch(tmp_path, "--source", address).returncode == 0
    assert (tmp_path / "mask/tofu_0.8.pt").read_bytes() == mask


def test_a_download_that_stays_broken_is_kept_and_the_same_command_resumes(mask, tmp_path):
    with server(mask, breaks=100) as (address, seen):
        broken = fetch(tmp_path, "--source", address)
    assert broken.returncode == 1
    assert "the same command resumes" in broken.stderr
    assert "Traceback" not in broken.stderr
    half = tmp_path / "mask/tofu_0.8.pt.part"
    assert half.stat().st_size > 0
    assert not (tmp_path / "mask/tofu_0.8.pt").exists()
    with server(mask, port=int(address.rpartition(":")[2])) as (address, seen):
        assert fetch(tmp_path, "--source", f"{address}/tofu_0.8.pt").returncode == 0
    assert seen[0].startswith("bytes=")
    assert (tmp_path / "mask/tofu_0.8.pt").read_bytes() == mask
    assert [path.name for path in (tmp_path / "mask").iterdir()] == ["tofu_0.8.pt"]


def test_pieces_of_two_files_are_never_joined(mask, tmp_path):
    """Another version of the same length behind the same address, and another address."""
    torch.save({"w": torch.arange(400_000) % 5 > 0}, tmp_path / "next.pt")
    other = (tmp_path / "next.pt").read_bytes()
    assert len(other) == len(mask)
    with server(mask, breaks=100) as (address, _):
        assert fetch(tmp_path, "--source", address).returncode == 1
    with server(other, port=int(address.rpartition(":")[2])) as (address, _):
        assert fetch(tmp_path, "--source", address).returncode == 0
    assert (tmp_path / "mask/tofu_0.8.pt").read_bytes() == other
    (tmp_path / "mask/tofu_0.8.pt.part").write_bytes(other[:1000])
    with server(mask) as (address, seen):
        assert fetch(tmp_path, "--source", address, "--overwrite").returncode == 0
    assert seen == [None]
    assert (tmp_path / "mask/tofu_0.8.pt").read_bytes() == mask


@pytest.mark.parametrize(
    "content, words, message",
    [
        (b"<html>sign in</html>", (), "is not a mask file and was removed"),
        (floats(), (), "a mask is bool"),
        (None, ("--sha256", "00"), "--sha256: the file has"),
    ],
)
def test_what_is_not_the_mask_leaves_nothing(content, words, message, mask, tmp_path):
    with server(content or mask) as (address, _):
        refused = fetch(tmp_path, "--source", address, *words)
    assert refused.returncode == 1
    assert message in refused.stderr
    assert list((tmp_path / "mask").iterdir()) == []


def test_paths_and_refusals(mask, tmp_path):
    (tmp_path / "masks").mkdir()
    (tmp_path / "masks/tofu_0.8.pt").write_bytes(mask)
    assert fetch(tmp_path, "--source", tmp_path / "masks").returncode == 0
    again = fetch(tmp_path, "--source", tmp_path / "masks")
    assert again.returncode == 1
    assert "--overwrite" in again.stderr
    assert fetch(tmp_path, "--source", tmp_path / "masks/tofu_0.8.pt", "--overwrite").returncode == 0
    with server(mask) as (address, _):
        absent = run_script("download_mask", "wmdp", "0.4", "--out", tmp_path / "mask", "--source", address)
    assert absent.returncode == 1
    assert "the server answers 404" in absent.stderr
    nobody = fetch(tmp_path, "--source", "http://127.0.0.1:9", "--overwrite")
    assert nobody.returncode == 1
    assert "cannot fetch" in nobody.stderr
    assert "Traceback" not in nobody.stderr
    odd = run_script("download_mask", "../tofu", "0.8")
    assert odd.returncode == 1
    assert "make a file name" in odd.stderr


@pytest.mark.parametrize("number", range(2, 5))
def test_killed_while_it_replaces_a_mask_that_one_never_loses_its_sidecar(number, mask, tmp_path):
    """The changes: the fetched file beside it, the old mask, its sidecar, the new mask."""
    out, source = tmp_path / "mask", tmp_path / "masks"
    out.mkdir()
    source.mkdir()
    (source / "tofu_0.8.pt").write_bytes(mask)
    (out / "tofu_0.8.pt").write_bytes(b"old")
    (out / "tofu_0.8.pt.json").write_text("{}")
    words = "tofu", "0.8", "--out", out, "--source", source, "--overwrite"
    killed = Forked("download_mask", *words, log=tmp_path / "killed", before=die_at_change(number, out))
    assert killed.ended.returncode == -signal.SIGKILL, killed.ended
    left = {file.name for file in out.iterdir()}
    assert "tofu_0.8.pt" not in left or "tofu_0.8.pt.json" in left
    assert run_script("download_mask", *words).returncode == 0
    assert [file.name for file in out.iterdir()] == ["tofu_0.8.pt"]
    assert (out / "tofu_0.8.pt").read_bytes() == mask

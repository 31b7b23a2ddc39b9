"""Downloads against a server on this machine: no network is used."""

import hashlib
import http.server
import socket
import threading
import time

import pytest

from fishnet.data import download
from fishnet.data.download import DownloadError, fetch
from fishnet.errors import UserError

CONTENT = b"0123456789" * 50_000
SHA256 = hashlib.sha256(CONTENT).hexdigest()


class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        if self.path == "/missing":
            return self.send_error(404)
        self.send_response(200)
        self.send_header("Content-Length", str(len(CONTENT)))
        self.end_headers()
        if self.path == "/silent":
            time.sleep(1)
        elif self.path == "/cut":
            self.wfile.write(CONTENT[: len(CONTENT) // 2])
        elif self.path == "/slow":
            for start in range(0, len(CONTENT), 10_000):
                self.wfile.write(CONTENT[start : start + 10_000])
                time.sleep(0.05)
        else:
            self.wfile.write(CONTENT if self.path == "/file" else bytes(len(CONTENT)))

    def log_message(self, *args):
        pass


@pytest.fixture(scope="module")
def server():
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    server.handle_error = lambda *args: None
    threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch):
    monkeypatch.setenv("no_proxy", "127.0.0.1")


def test_a_file_arrives_whole_in_a_new_folder(server, tmp_path):
    fetch([f"{server}/file"], tmp_path / "new" / "digits.gz", SHA256)
    assert (tmp_path / "new" / "digits.gz").read_bytes() == CONTENT
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["digits.gz"]


def test_the_next_mirror_is_tried(server, tmp_path):
    fetch([f"{server}/{path}" for path in ("missing", "other", "cut", "file")], tmp_path / "digits.gz", SHA256)
    assert (tmp_path / "digits.gz").read_bytes() == CONTENT


def test_a_file_url_serves_as_a_mirror(tmp_path):
    (tmp_path / "source").write_bytes(CONTENT)
    fetch([(tmp_path / "source").as_uri()], tmp_path / "digits.gz", SHA256)
    assert (tmp_path / "digits.gz").read_bytes() == CONTENT


def refused(urls, folder, **options):
    with pytest.raises(DownloadError) as caught:
        fetch(urls, folder / "digits.gz", SHA256, **options)
    assert list(folder.iterdir()) == []
    message = str(caught.value)
    assert "digits.gz" in message and all(url in message for url in urls) and "\n" not in message
    return message


def test_every_failure_is_told_and_leaves_nothing(server, tmp_path):
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        closed = f"http://127.0.0.1:{unused.getsockname()[1]}/file"
        message = refused([f"{server}/missing", f"{server}/other", f"{server}/cut", closed, "no url"], tmp_path)
    for reason in ("Not Found", "wrong checksum", "refused", "unknown url type"):
        assert reason in message
    assert "timed out" in refused([f"{server}/silent"], tmp_path, timeout=0.2)
    assert "not complete after" in refused([f"{server}/slow"], tmp_path, limit=0.2)


def test_an_endless_answer_is_given_up(server, tmp_path, monkeypatch):
    monkeypatch.setattr(download, "_MOST", 100_000)
    assert "more than 100,000 bytes" in refused([f"{server}/file"], tmp_path)


def test_a_target_that_cannot_be_written_is_no_fault_of_the_mirrors(server, tmp_path):
    (tmp_path / "in_the_way").write_text("a file")
    with pytest.raises(UserError, match=r"cannot write .*digits.gz") as caught:
        fetch([f"{server}/file"], tmp_path / "in_the_way" / "digits.gz", SHA256)
    assert not isinstance(caught.value, DownloadError)

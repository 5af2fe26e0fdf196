"""tools/make_data.py --download, against a server of this machine: breaks, damage, no network."""

import errno
import functools
import hashlib
import http.server
import io
import os
import re
import shutil
import socket
import tarfile
import threading
from pathlib import Path

import pytest

from convnet import download, files
from convnet.download import Archive
from tests.tooling import call

NAME = "things.tgz"


class Handler(http.server.BaseHTTPRequestHandler):
    """Serves server.data, as server.how says."""

    def do_GET(self):
        data, begin = self.server.data, 0
        asked = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
        self.server.asked.append(int(asked[1]) if asked else 0)
        if self.server.status:
            self.send_error(self.server.status)
            return
        if asked and self.server.ranges:
            begin = int(asked[1])
        self.send_response(206 if asked and self.server.ranges else 200)
        self.send_header("Content-Length", str(len(data) - begin))
        self.end_headers()
        self.wfile.write(data[begin : begin + self.server.most])

    def log_message(self, *_):
        pass


@pytest.fixture
def server():
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as made:
        made.data, made.asked, made.status, made.ranges, made.most = (
            packed(),
            [],
            None,
            True,
            1 << 30,
        )
        thread = threading.Thread(target=functools.partial(made.serve_forever, 0.01))
        thread.start()
        yield made
        made.shutdown()
        thread.join()


@pytest.fixture
def get(server, tmp_path, monkeypatch):
    """get() downloads the set `things` into tmp_path/data."""
    monkeypatch.setattr(download.time, "sleep", lambda _: None)
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    url = f"http://127.0.0.1:{server.server_port}/{NAME}"
    offer(monkeypatch, Archive(url, len(server.data), "sha256", sha(server.data)))

    def found():
        return call("make_data", "--download=things", f"--to={tmp_path / 'data'}")

    return found


def offer(monkeypatch, *archives):
    monkeypatch.setattr(download, "SETS", {"things": ("things", list(archives))})


def sha(data):
    return hashlib.sha256(data).hexdigest()


def packed(names=("things/a.txt", "things/b/c.txt")):
    """A compressed tar file with these in it."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:gz") as tar:
        for name in names:
            member, text = tarfile.TarInfo(name), name.encode() * 5000
            member.size = len(text)
            tar.addfile(member, io.BytesIO(text))
    return out.getvalue()


def whole(folder):
    """All that is in the folder: the archive, and what it makes."""
    found = sorted(str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file())
    assert found == [NAME, "things/a.txt", "things/b/c.txt"]
    assert (folder / "things/b/c.txt").read_bytes() == b"things/b/c.txt" * 5000


def test_it_is_fetched_and_unpacked_once(get, server, tmp_path):
    assert get().code == 0
    whole(tmp_path / "data")
    assert server.asked == [0]
    assert "is there already" in get().out
    assert server.asked == [0]


def test_a_broken_connection_is_taken_up(get, server, tmp_path):
    server.most = len(server.data) // 4
    assert get().code == 0
    whole(tmp_path / "data")
    assert server.asked == [i * server.most for i in range(len(server.asked))]
    assert len(server.asked) == 5 - (len(server.data) % 4 == 0)


def test_a_killed_run_is_taken_up(get, server, tmp_path):
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / f"{NAME}.part").write_bytes(server.data[:77])
    assert get().code == 0
    whole(tmp_path / "data")
    assert server.asked == [77]


def test_a_server_without_ranges(get, server, tmp_path):
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / f"{NAME}.part").write_bytes(server.data[:77])
    server.ranges = False
    assert get().code == 0
    whole(tmp_path / "data")


def test_a_whole_part_and_an_archive_that_is_there_need_no_network(get, server, tmp_path):
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / f"{NAME}.part").write_bytes(server.data)
    assert get().code == 0
    whole(tmp_path / "data")
    (tmp_path / "data" / "things" / "a.txt").unlink()
    for path in "things/b/c.txt", "things/b", "things":
        path = tmp_path / "data" / path
        path.unlink() if path.is_file() else path.rmdir()
    assert get().code == 0
    whole(tmp_path / "data")
    assert server.asked == []


def fails(result, *patterns, code=3):
    assert result.code == code, result
    assert result.err.count("\n") == 1
    for pattern in patterns:
        assert pattern in result.err


def nothing(folder):
    return not list(folder.rglob("*"))


@pytest.mark.parametrize("kind", ["other", "longer", "shorter"])
def test_another_file_than_it_was(get, server, tmp_path, kind):
    right = server.data
    server.data = {
        "other": right[:50] + bytes([right[50] ^ 1]) + right[51:],
        "longer": right[:60] + b"x" + right[60:],
        "shorter": right[:-9],
    }[kind]
    if kind == "shorter":  # which looks like a connection that breaks off
        fails(get(), "the connection broke off", "the same command goes on")
        assert (tmp_path / "data" / f"{NAME}.part").stat().st_size == len(server.data)
        return
    fails(get(), f"not {sha(right)}", "not the file it was; try again")
    assert nothing(tmp_path / "data")
    server.data = right
    assert get().code == 0


def test_an_archive_that_is_there_but_wrong(get, tmp_path):
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / NAME).write_bytes(b"x")
    fails(get(), "things.tgz: its sha256 is", "delete it, or take it away")
    assert (tmp_path / "data" / NAME).read_bytes() == b"x"


@pytest.mark.parametrize("status", [404, 403, 503])
def test_a_server_that_refuses(get, server, tmp_path, status):
    server.status = status
    fails(get(), f"the server says {status} ", f"or put the file into {tmp_path / 'data'} yourself")
    assert nothing(tmp_path / "data")
    assert len(server.asked) == (1 if status < 500 else download.TRIES)


def test_without_a_network(get, server, tmp_path, monkeypatch):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # and nobody listens there
        url = f"http://127.0.0.1:{taken.getsockname()[1]}/{NAME}"
        offer(monkeypatch, Archive(url, 100, "md5", "0"))
        fails(get(), f"{url}: cannot be reached (Connection refused)")
    assert nothing(tmp_path / "data")

    def unknown(*_):  # some networks answer to any name, or a minute later
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    offer(monkeypatch, Archive(f"http://no-such-host.invalid/{NAME}", 100, "md5", "0"))
    fails(get(), "no-such-host.invalid", "cannot be reached (Name or service not known)")


@pytest.mark.parametrize("name", ["../evil.txt", "/tmp/evil.txt", "things/../../evil.txt"])
def test_nothing_is_unpacked_elsewhere(get, server, tmp_path, monkeypatch, name):
    server.data = packed(["things/a.txt", name])
    url = f"http://127.0.0.1:{server.server_port}/{NAME}"
    offer(monkeypatch, Archive(url, len(server.data), "sha256", sha(server.data)))
    result = get()
    if name.startswith("/"):  # tarfile takes the slash away; this makes a file beside `things`
        assert result.code == 0
    else:
        fails(result, f"things.tgz: cannot be unpacked, {name} would be written elsewhere")
        assert [p.name for p in (tmp_path / "data").iterdir()] == [NAME]
    assert not list(tmp_path.rglob("evil.txt"))


def test_an_archive_of_something_else(get, server, tmp_path, monkeypatch):
    for data, why in (packed(["x/a"]), "makes no folder things"), (b"abc", "cannot be unpacked"):
        server.data = data
        url = f"http://127.0.0.1:{server.server_port}/{NAME}"
        offer(monkeypatch, Archive(url, len(data), "sha256", sha(data)))
        fails(get(), f"{NAME}: {why}")
        assert [p.name for p in (tmp_path / "data").iterdir()] == [NAME]
        (tmp_path / "data" / NAME).unlink()


def test_two_at_a_time(get, server, tmp_path):
    (tmp_path / "data").mkdir()
    with (tmp_path / "data" / f"{NAME}.part").open("ab") as file:
        assert files.hold(file)
        fails(get(), "another process is fetching it")


def test_what_a_killed_run_has_unpacked_is_deleted(get, tmp_path):
    """At once; what a live one unpacks is let be, and what has no lock yet, for a day."""
    dead, live, begun, old = (tmp_path / "data" / f".unpacked-{i}" for i in range(4))
    for path in dead, live, begun, old:
        path.mkdir(parents=True)
        (path / "a.txt").write_text("a")
    (dead / download.LOCK).touch()
    os.utime(old, (1e9, 1e9))
    with files.locked(live / download.LOCK):
        assert get().code == 0
    left = {path.name for path in (tmp_path / "data").iterdir()}
    assert left == {NAME, "things", live.name, begun.name}


def test_what_another_user_has_unpacked_is_let_be(get, tmp_path, monkeypatch):
    """Also a leftover that may not be looked into, and one that goes while we look."""
    theirs, going = (tmp_path / "data" / f".unpacked-{name}" for name in ("theirs", "going"))
    for path in theirs, going:
        path.mkdir(parents=True)
        (path / download.LOCK).touch()
    real = {name: getattr(Path, name) for name in ("open", "exists")}

    def refusing(name):
        def call(path, *args, **kwargs):
            if path.parent == theirs:
                raise PermissionError(errno.EACCES, "Permission denied", str(path))
            if path.parent == going and going.exists():
                shutil.rmtree(going)
            return real[name](path, *args, **kwargs)

        return call

    for name in real:
        monkeypatch.setattr(Path, name, refusing(name))
    with files.abandoned(theirs / download.LOCK) as dead:
        assert not dead
    assert get().code == 0
    assert {path.name for path in (tmp_path / "data").iterdir()} == {NAME, "things", theirs.name}


def test_a_disk_that_fails(get, tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "rename", full)
    fails(get(), f"--to={tmp_path / 'data'}: No space left on device; free some space", code=2)


def test_other_names():
    result = call("make_data", "--download=cifar-10")
    fails(result, "no such set; did you mean 'cifar10'?; has cifar10, imagenette,", code=2)


def test_the_table():
    for made, archives in download.SETS.values():
        assert made
        for archive in archives:
            assert re.fullmatch(r"https?://[\w./~-]+\.(tar|tgz|tar\.gz)", archive.url)
            assert len(archive.checksum) == 2 * hashlib.new(archive.kind).digest_size
            assert set(archive.checksum) <= set("0123456789abcdef")
            assert archive.size > 10_000_000

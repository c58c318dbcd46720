"""A store of objects: one contract for all of them, and a real server that fails in every way it can."""

from __future__ import annotations

import gc
import itertools
import os
import sys
import threading
import time
import traceback

import pytest

from stopctl import DamagedError, SettingError
from stopctl.mirror import objects
from stopctl.mirror.objects import probe, remote
from support import objectstore
from support.objectstore import CUT, DENIED, DROPPED, EXPIRED, KEYS, LOST, SLOW_DOWN, options

NUMBERS = itertools.count()
DEADLINE = 60.0
"""Seconds; what is to work again works at once, and what is not has a clock of its own."""


@pytest.fixture(scope="module")
def gate(s3_server):
    """A proxy, and a client through it: to make one costs a second."""
    with objectstore.proxy(s3_server) as proxy:
        store = remote("s3://runs/x", options(proxy.address))
        yield proxy, store
        store.close()


@pytest.fixture
def proxied(gate):
    """The same as new: nothing fails yet, and nothing is there."""
    proxy, store = gate
    proxy.reset()
    store.url = f"s3://runs/x{next(NUMBERS)}"
    store._root, store._deadline, store._clock = store.url.removeprefix("s3://"), DEADLINE, time.monotonic
    return proxy, store


@pytest.fixture(params=["memory", "file", "s3"])
def stores(request, tmp_path):
    """Makes clients of one store that nothing was put into."""
    url = {"memory": f"memory://{next(NUMBERS)}/x", "file": f"file://{tmp_path}/a b/%20[]"}.get(request.param)
    if url is not None:
        return lambda: remote(url)
    proxy, store = request.getfixturevalue("proxied")
    clients = iter([store, remote(store.url, options(proxy.address))])
    return clients.__next__


def _file(path, data):
    path.write_bytes(data)
    return path


def test_the_contract(stores, tmp_path):
    store = stores()
    assert store.list("") == store.list("data/") == []
    store.create("data/a", b"one")
    store.create("data/empty", b"")
    store.upload("data/n/file", _file(tmp_path / "file", b"of some bytes"))
    store.upload("data/n/nothing", _file(tmp_path / "nothing", b""))
    keys = ["data/a", "data/empty", "data/n/file", "data/n/nothing"]
    assert store.list("") == store.list("data/") == keys
    assert store.list("data/n/") == keys[2:]
    assert store.list("data/a/") == store.list("dat/") == []
    for key in keys:
        with pytest.raises(FileExistsError, match=key):
            store.create(key, b"another")
        with pytest.raises(FileExistsError, match=key):
            store.upload(key, _file(tmp_path / "other", b"another"))
    assert [store.read(key, 13) for key in keys] == [b"one", b"", b"of some bytes", b""]
    with pytest.raises(DamagedError, match="more than 2"):
        store.read("data/a", 2)
    with pytest.raises(DamagedError, match="more than 2"):
        store.download("data/a", tmp_path / "too-large", 2)
    assert not (tmp_path / "too-large").exists()
    for key in keys:
        store.download(key, tmp_path / f"got-{key.replace('/', '-')}", 13)
    assert (tmp_path / "got-data-n-file").read_bytes() == b"of some bytes"
    assert (tmp_path / "got-data-empty").read_bytes() == b""
    for missing in ("data/b", "other/a"):
        with pytest.raises(FileNotFoundError, match=missing):
            store.read(missing, 9)
        with pytest.raises(FileNotFoundError, match=missing):
            store.download(missing, tmp_path / "missing", 9)
    store.delete(["data/n/file", "data/not/there", "data/n/nothing"])
    assert store.list("data/") == ["data/a", "data/empty"]
    store.create("data/n/file", b"anew")
    for wrong in ("", "/a", "a//b", "../a", "a/./b", "a\0"):
        with pytest.raises(ValueError, match="no key"):
            store.create(wrong, b"")


def test_clients_see_each_other_at_once(stores, tmp_path):
    one, other = stores(), stores()
    one.create("writers/1", b"1")
    assert other.list("writers/") == ["writers/1"]
    one.create("writers/2", b"2")
    assert other.list("writers/") == ["writers/1", "writers/2"]
    other.read("writers/2", 1)
    one.delete(["writers/2"])
    assert other.list("writers/") == ["writers/1"]
    with pytest.raises(FileNotFoundError):
        other.read("writers/2", 1)


def test_of_those_who_create_at_once_one_has_it(stores):
    store = stores()
    won, lost = [], []

    def create(name):
        try:
            store.create("writers/1", name)
            won.append(name)
        except FileExistsError:
            lost.append(name)

    threads = [threading.Thread(target=create, args=(b"%d" % i,)) for i in range(6)]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    assert (len(won), len(lost)) == (1, 5)
    assert store.read("writers/1", 1) == won[0]


def test_a_forked_process_has_connections_of_its_own(stores):
    store = stores()
    store.create("a", b"1")
    child = os.fork()
    if not child:
        code = 1
        try:
            store.create("b", b"2")
            gc.collect()  # what it has of its parent's is not to be closed
            code = 0 if store.list("") == ["a", "b"] else 2
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert store.read("a", 1) == b"1"


class Careless:
    """A store that passes over the condition, or lists what it had a while ago."""

    url = "s3://careless"

    def __init__(self, *, overwrites, lists):
        self.overwrites, self.lists, self.kept = overwrites, lists, {}

    def create(self, key, data):
        if key in self.kept and not self.overwrites:
            raise FileExistsError(key)
        self.kept[key] = data

    def list(self, prefix):
        return [key for key in self.kept if key.startswith(prefix) and self.lists]

    def delete(self, keys):
        for key in keys:
            del self.kept[key]


def test_the_probe_refuses_stores_that_do_not_keep_writers_apart(stores):
    store = stores()
    probe(store)
    assert store.list("") == []
    for careless, says in {
        Careless(overwrites=True, lists=True): "If-None-Match",
        Careless(overwrites=False, lists=False): "not listed",
    }.items():
        with pytest.raises(SettingError, match=says):
            probe(careless)
        assert careless.kept == {}
    probe(Careless(overwrites=False, lists=True))


@pytest.mark.parametrize("fault", [SLOW_DOWN, (500, "InternalError"), DROPPED, LOST, CUT, EXPIRED, DENIED])
def test_what_failed_is_tried_again(proxied, fault, tmp_path):
    proxy, store = proxied
    file = _file(tmp_path / "file", b"of some bytes")

    def broken(work, *arguments):
        proxy.faults.append(fault)
        answer = None
        try:
            answer = work(*arguments)
        except FileExistsError:
            assert fault in (LOST, CUT)  # the one that was written, whose answer was lost
        assert not proxy.faults
        return answer

    broken(store.create, "a", b"one")
    if fault in (EXPIRED, DENIED):  # each time a new session is made
        return
    broken(store.upload, "b", file)
    store.create("c", b"")
    assert broken(store.list, "") == ["a", "b", "c"]
    assert broken(store.read, "a", 9) == b"one"
    broken(store.download, "b", tmp_path / "got", 13)
    assert (tmp_path / "got").read_bytes() == b"of some bytes"
    broken(store.delete, ["a", "b"])
    assert store.list("") == ["c"]


def test_credentials_that_expired_are_read_anew(proxied, monkeypatch):
    proxy, _ = proxied
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "of-the-environment")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIDold")
    store = remote("s3://runs/renewed", {"client_kwargs": options(proxy.address)["client_kwargs"]})
    store.list("a/")
    assert "Credential=AKIDold/" in proxy.signed
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIDnew")
    proxy.faults.append(EXPIRED)
    store.create("a", b"1")
    assert "Credential=AKIDnew/" in proxy.signed
    store.close()


@pytest.mark.parametrize("fault", [SLOW_DOWN, EXPIRED, DENIED])
def test_what_goes_on_failing_is_told_without_secrets(proxied, fault):
    proxy, store = proxied
    assert store.list("a/") == []  # and a session is made
    store._deadline, store._clock = 2.5, itertools.count(0.0, 1.0).__next__
    proxy.faults.extend([fault] * 9)
    with pytest.raises(OSError, match="no; \\(masked\\)") as caught:
        store.create("a", b"1")
    assert isinstance(caught.value, PermissionError) == (fault is not SLOW_DOWN)
    assert [method for method, _ in proxy.seen] == ["GET", *["PUT"] * (2 if fault is DENIED else 3)]
    told = f"{caught.value!r} {caught.value.__cause__!r} {store!r}"
    assert store.url in told
    assert not any(secret in told for secret in KEYS.values())


def test_a_server_that_stops_and_starts_again(s3_server):
    with objectstore.proxy(s3_server) as proxy:
        address = proxy.address
        store = remote("s3://runs/stops", options(address), deadline=DEADLINE)
        store.create("a", b"1")
    store._clock = itertools.count(0.0, 45.0).__next__
    with pytest.raises(OSError, match="stops/a"):
        store.read("a", 1)
    store._clock = time.monotonic
    with objectstore.proxy(s3_server, int(address.rpartition(":")[2])):
        assert store.read("a", 1) == b"1"
        with pytest.raises(FileNotFoundError, match="bucket does not exist"):
            remote("s3://no-such/x", options(s3_server)).list("a/")
        store.close()


def test_closing_ends_what_is_tried_again():
    store = remote("memory://closed", deadline=3600.0)
    tried = []

    def away(fs):
        tried.append(fs)
        threading.Thread(target=store.close).start()
        raise OSError("away")

    with pytest.raises(OSError, match="away"):
        store._try("a", away)
    assert tried


def test_long_listings_come_whole(proxied):
    proxy, store = proxied
    keys = [f"commits/{i}" for i in range(5)]
    for key in keys:
        store.create(key, b"")
    proxy.page = 2
    assert store.list("commits/") == keys
    assert sum("list-type=2" in path for _, path in proxy.seen) == 3


def test_a_large_file_goes_in_parts_and_one_broken_off_leaves_nothing(s3_server, tmp_path, monkeypatch):
    monkeypatch.setattr(objects, "PART", 5 << 20)  # the least that S3 takes
    store = remote("s3://runs/large", options(s3_server), deadline=DEADLINE)
    data = os.urandom((10 << 20) + 7)
    file = _file(tmp_path / "file", data)
    store.upload("data/f", file)
    with pytest.raises(FileExistsError):
        store.upload("data/f", _file(tmp_path / "other", data[::-1]))
    store.download("data/f", tmp_path / "got", len(data))
    assert (tmp_path / "got").read_bytes() == data
    for key in ("large/data/g", "larger/data/g"):
        objectstore.call(s3_server, "create_multipart_upload", Bucket="runs", Key=key)
    probe(store)
    left = objectstore.call(s3_server, "list_multipart_uploads", Bucket="runs")["Uploads"]
    assert [one["Key"] for one in left] == ["larger/data/g"]
    store.close()


def test_who_may_not_look_for_broken_uploads_is_told_once(proxied, caplog):
    proxy, store = proxied
    proxy.only = lambda method, path: "uploads" in path
    proxy.faults.extend([DENIED] * 2)
    probe(store)
    assert [one.getMessage().count("lifecycle rule") for one in caplog.records] == [1]


@pytest.mark.parametrize(
    ("url", "says"),
    [
        (7, "write a URL"),
        ("runs/mnist", "no such scheme"),
        ("ftp://host/a", "'ftp': no such scheme"),
        ("s3://", "bucket/prefix"),
        ("s3:///a", "bucket/prefix"),
        ("s3://runs/../b", "empty parts or dots"),
        ("s3://KEY:hidden@runs/a", r"'s3://\.\.\.'"),
        ("az://runs/a?sig=hidden", "mirror_options"),
        ("file://mnt/disk", "three slashes"),
        ("file:///", "three slashes"),
        ("file://~/disk", "three slashes"),
    ],
)
def test_urls_that_cannot_be(url, says):
    with pytest.raises(SettingError, match=says) as caught:
        remote(url)
    assert "hidden" not in str(caught.value)


def test_options_that_cannot_be(s3_server):
    with pytest.raises(SettingError, match="file:// takes none") as caught:
        remote("file:///mnt/disk", {"key": "hidden"})
    assert "hidden" not in str(caught.value)
    with pytest.raises(SettingError, match="dict of names"):
        remote("memory://a", {1: "hidden"})
    store = remote("s3://runs/a", {**options(s3_server), "config_kwargs": {"no_such": "hidden"}})
    with pytest.raises(SettingError, match="no_such"):
        store.list("")
    assert remote("s3://runs/a", {"secret": "hidden"}).__repr__() == "<objects at s3://runs/a>"


def test_packages_that_are_missing(monkeypatch):
    with pytest.raises(SettingError, match="needs gcsfs: pip install gcsfs"):
        remote("gs://runs/a")
    monkeypatch.setitem(sys.modules, "fsspec", None)
    for url in ("s3://runs/a", "memory://a"):
        with pytest.raises(SettingError, match=r"pip install \"stopctl\[s3\]\""):
            remote(url)
    remote("file:///mnt/disk")

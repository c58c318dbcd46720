from __future__ import annotations

import errno
import hashlib
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stopctl.core.errors import DamagedError
from stopctl.store import FILES, Files, hashed
from stopctl.store.files import STEP, Handle, read_whole
from stopctl.store.hashed import (
    CHUNK,
    DIGEST,
    SMALL,
    FileFact,
    Hasher,
    check_file,
    digests,
    file_fact,
    read_chunks,
    read_file,
    write_file,
)
from support.recorder import Op, Recorder

LARGE = bytes(range(256)) * (CHUNK // 256) + b"tail"
"""A chunk, and a bit of another one."""


def fact_of(data: bytes, chunk: int = CHUNK) -> FileFact:
    """By the definition: of a file of one chunk its SHA-256, else that of its chunks' one after the other."""
    if len(data) <= chunk:
        return FileFact(len(data), hashlib.sha256(data).hexdigest())
    cut = [data[at : at + chunk] for at in range(0, len(data), chunk)]
    chunks = b"".join(hashlib.sha256(each).digest() for each in cut)
    return FileFact(len(data), hashlib.sha256(chunks).hexdigest(), True, chunks)


def whole(data: bytes) -> FileFact:
    """As format 1 has it, whatever the size."""
    return FileFact(len(data), hashlib.sha256(data).hexdigest())


@pytest.mark.parametrize(
    "parts",
    [
        [],
        [b""],
        [b"abc", bytearray(b"d"), memoryview(b"ef")],
        [b"x" * (SMALL - 1)] * 200,
        [b"a", LARGE, b"", b"b" * SMALL, b"c"],
        [LARGE],
    ],
    ids=["none", "empty", "kinds", "many small", "mixed", "large"],
)
def test_a_file_is_its_parts_and_their_hash(tmp_path: Path, parts: list[Any]) -> None:
    data = b"".join(parts)
    fact = write_file(FILES, tmp_path / "f", parts)
    assert (tmp_path / "f").read_bytes() == data
    assert (fact, fact.chunks) == (fact_of(data), fact_of(data).chunks)
    assert read_file(FILES, tmp_path / "f", fact) == data
    assert read_file(FILES, tmp_path / "f", whole(data)) == data, "as format 1 has it"
    assert read_whole(FILES, tmp_path / "f", len(data)) == data


@given(
    sizes=st.lists(st.sampled_from([0, 1, 7, 8, 9, 24, 100]), max_size=20),
    threads=st.integers(1, 4),
    chunk=st.sampled_from([5, 16, 64, 1000]),
)
def test_parts_of_any_sizes_are_written_in_order_and_hashed_by_chunks(
    tmp_path_factory: pytest.TempPathFactory, sizes: list[int], threads: int, chunk: int
) -> None:
    path = tmp_path_factory.mktemp("parts") / "f"
    parts = [bytes([65 + i]) * size for i, size in enumerate(sizes)]
    data = b"".join(parts)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(hashed, "STEP", 16)
        patch.setattr(hashed, "SMALL", 8)
        patch.setattr(hashed, "CHUNK", chunk)
        patch.setattr(hashed, "processors", lambda: threads)
        fact = write_file(FILES, path, parts)
        expected = fact_of(data, chunk)
        assert (fact, fact.chunks) == (expected, expected.chunks)
        assert fact == FileFact.of(fact.size, fact.sha256)
        assert read_file(FILES, path, fact) == data
        assert file_fact(FILES, path) == fact
        assert file_fact(FILES, path, chunked=False) == whole(data)
        for first in range(len(fact.chunks) // DIGEST):
            into = memoryview(bytearray(min(2 * chunk, len(data) - first * chunk)))
            read_chunks(FILES, path, into, first, fact.chunks[first * DIGEST : (first + 2) * DIGEST])
            assert into == data[first * chunk :][: 2 * chunk]


def test_a_large_file_is_on_its_way_to_the_disk_while_it_is_written(tmp_path: Path) -> None:
    files = Recorder()
    write_file(files, tmp_path / "f", [LARGE, LARGE])
    names = [op.name for op in files.ops]
    assert names == [
        "create",
        *["write"] * 2,
        "write_back",
        *["write"] * 3,
        "write_back",
        "write",
        "sync",
        "close",
    ]


def test_bytes_that_cannot_be_written_back_fail_the_save(tmp_path: Path) -> None:
    def hook(index: int, op: Op) -> None:
        if op.name == "write_back":
            raise OSError(errno.EIO, "broken")

    files = Recorder(hook)
    with pytest.raises(OSError, match="broken") as caught:
        write_file(files, tmp_path / "f", [LARGE])
    assert caught.value.filename == str(tmp_path / "f")
    assert [op.name for op in files.ops][-2:] == ["write_back", "close"], (
        "neither tried again nor passed over"
    )


def test_small_parts_are_gathered_and_large_ones_cut(tmp_path: Path) -> None:
    files = Recorder()
    write_file(files, tmp_path / "f", [b"ab"] * 1000 + [LARGE])
    assert [len(op.data) for op in files.ops if op.name == "write"] == [2000, STEP, STEP, 4]


class Halving(Files):
    """Takes and gives at most half of what is asked for."""

    def write(self, handle: Handle, data: bytes | bytearray | memoryview) -> int:
        return super().write(handle, memoryview(data)[: (len(data) + 1) // 2])

    def read(self, handle: Handle, into: memoryview, offset: int) -> int:
        return super().read(handle, into[: (len(into) + 1) // 2], offset)


def test_short_writes_and_reads_are_gone_on_with(tmp_path: Path) -> None:
    fact = write_file(Halving(), tmp_path / "f", [LARGE])
    assert fact == fact_of(LARGE)
    assert read_file(Halving(), tmp_path / "f", fact) == LARGE


def test_a_write_of_nothing_is_an_error_and_no_endless_loop(tmp_path: Path) -> None:
    class Full(Files):
        def write(self, handle: Handle, data: bytes | bytearray | memoryview) -> int:
            return 0

    with pytest.raises(OSError, match="not a byte was written") as caught:
        write_file(Full(), tmp_path / "f", [b"x"])
    assert caught.value.filename == str(tmp_path / "f")


@pytest.mark.parametrize("name", ["create", "write", "sync", "close"])
@pytest.mark.parametrize("data", [b"x", LARGE], ids=["small", "large"])
def test_errors_name_the_file_and_leave_no_thread_behind(tmp_path: Path, name: str, data: bytes) -> None:
    def hook(index: int, op: Op) -> None:
        if op.name == name:
            raise OSError(errno.EIO, "broken")

    files = Recorder(hook)
    with pytest.raises(OSError, match="broken") as caught:
        write_file(files, tmp_path / "f", [data])
    assert caught.value.filename == str(tmp_path / "f")
    assert [op.name for op in files.ops].count(name) == 1, "retried"
    assert (files.ops[-1].name == "close") is (name != "create")
    assert not [thread for thread in threading.enumerate() if thread.name == "stopctl-sha256"]


def test_another_size_hash_or_length_is_damage(tmp_path: Path) -> None:
    path = tmp_path / "f"
    fact = write_file(FILES, path, [LARGE])
    with pytest.raises(DamagedError, match=f"f: {len(LARGE)} bytes, more than 5"):
        read_file(FILES, path, replace(fact, size=5))
    for wrong in (replace(fact, sha256="0" * 64), replace(whole(LARGE), sha256="0" * 64)):
        with pytest.raises(DamagedError, match=r"f: its SHA-256 is not the one in the manifest\Z"):
            read_file(FILES, path, wrong)
    with pytest.raises(DamagedError, match=f"f: {len(LARGE)} bytes instead of {len(LARGE) + 1}"):
        read_file(FILES, path, replace(fact, size=len(LARGE) + 1))

    class Shrinking(Files):
        """Somebody cuts the file."""

        def __init__(self, end: int) -> None:
            self.end = end

        def read(self, handle: Handle, into: memoryview, offset: int) -> int:
            return 0 if offset >= self.end else super().read(handle, into, offset)

    with pytest.raises(DamagedError, match=f"f: ends after {CHUNK} of {len(LARGE)} bytes"):
        read_file(Shrinking(CHUNK), path, fact)
    with pytest.raises(DamagedError, match=f"f: ends after {STEP} of {len(LARGE)} bytes"):
        read_file(Shrinking(STEP), path, whole(LARGE))
    with pytest.raises(OSError, match="what was read back is not what was written"):
        check_file(Shrinking(CHUNK), path, fact)
    with pytest.raises(DamagedError, match=f"f: ends after {CHUNK} bytes"):
        read_chunks(Shrinking(CHUNK), path, memoryview(bytearray(4)), 1, fact.chunks[DIGEST:])
    with pytest.raises(DamagedError, match=f"f: the bytes from {CHUNK} on are not those that were written"):
        read_chunks(FILES, path, memoryview(bytearray(4)), 1, fact.chunks[:DIGEST])
    with pytest.raises(DamagedError, match="f: 8388612 bytes, more than 9"):
        read_whole(FILES, path, 9)


def test_nothing_is_allocated_for_a_size_that_the_file_has_not(tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(b"x")
    with pytest.raises(DamagedError, match="1 bytes instead of"):
        read_file(FILES, tmp_path / "f", FileFact(2**62, "0" * 64))


@pytest.mark.parametrize("threads", [0, 1, 3])
def test_the_hash_is_that_of_all_views_in_order(threads: int) -> None:
    with Hasher(threads) as hasher:
        for i in range(100):
            hasher.update(bytes([i]) * i)
    assert hasher.fact() == whole(b"".join(bytes([i]) * i for i in range(100)))


@given(sizes=st.lists(st.integers(0, 40), max_size=8), threads=st.integers(1, 4))
def test_digests_tell_apart_what_differs_in_a_byte(sizes: list[int], threads: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(hashed, "CHUNK", 16)
        patch.setattr(hashed, "processors", lambda: threads)
        views = [memoryview(bytearray([i] * size)) for i, size in enumerate(sizes)]
        before = digests(views)
        assert before == digests(views)
        for i, view in enumerate(views):
            for at in range(0, len(view), 7):
                view[at] ^= 1
                changed = [j for j, (a, b) in enumerate(zip(before, digests(views), strict=True)) if a != b]
                assert changed == [i]
                view[at] ^= 1


def hash_beside(*views: Any, error: type[Exception] | None = None) -> None:
    with Hasher(2) as hasher:
        for view in views:
            hasher.update(view)
        if error is not None:
            raise error


def test_an_error_in_the_thread_is_raised_by_the_block() -> None:
    with pytest.raises(TypeError, match="must be encoded"):
        hash_beside("no bytes", b"more")
    assert not [thread for thread in threading.enumerate() if thread.name == "stopctl-sha256"]


def test_an_error_of_the_block_wins_over_one_of_the_thread() -> None:
    with pytest.raises(KeyError):
        hash_beside("no bytes", error=KeyError)


def test_without_a_thread_to_be_had_the_hash_is_taken_in_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    def start(self: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", start)
    with Hasher(2) as hasher:
        hasher.update(b"abc")
    assert hasher.fact() == whole(b"abc")

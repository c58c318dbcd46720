from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stopctl import Run
from stopctl.core.errors import TreeError
from stopctl.store import FILES, Files, Reader, journal
from stopctl.store.files import Handle
from stopctl.store.journal import BLOCK, Journal, Lines, newest_first, parse
from support.recorder import Op, Recorder


def lines(path: Path) -> list[dict[str, Any]]:
    return list(Lines(FILES, path, parse))


def newest(path: Path) -> list[dict[str, Any]]:
    return list(newest_first(FILES, path))


def opened(path: Path, files: Files = FILES) -> Journal:
    return Journal(files, path)


def test_lines_come_back_in_order_and_one_write_is_one_line(tmp_path: Path) -> None:
    path = tmp_path / "j"
    files = Recorder()
    book = opened(path, files)
    for i in range(5):
        book.append({"i": i, "value": float("nan"), "text": "a\nb"})
    book.close()
    assert lines(path) == [{"i": i, "value": "NaN", "text": "a\nb"} for i in range(5)]
    writes = [op.data for op in files.ops if op.name == "write"]
    assert b"".join(writes) == path.read_bytes()
    assert [data.count(b"\n") for data in writes] == [1] * 5
    assert [op.name for op in files.ops][-2:] == ["sync", "close"]


def test_opening_again_goes_on_at_the_end(tmp_path: Path) -> None:
    for i in range(3):
        book = opened(tmp_path / "j")
        book.append({"i": i})
        book.close()
    assert (tmp_path / "j").read_bytes() == b'{"i":0}\n{"i":1}\n{"i":2}\n'


def test_a_torn_last_line_never_becomes_part_of_the_next(tmp_path: Path) -> None:
    path = tmp_path / "j"
    whole = b'{"i":0}\n{"i":1,"text":"abc"}\n'
    for size in range(len(whole) + 1):
        path.write_bytes(whole[:size])
        before = lines(path)
        book = opened(path)
        book.append({"i": 2})
        book.close()
        assert lines(path) == [*before, {"i": 2}]
        assert list(newest_first(FILES, path)) == [{"i": 2}, *reversed(before)]
        assert path.read_bytes().startswith(whole[:size])


def test_garbled_lines_are_passed_over_and_counted(tmp_path: Path) -> None:
    (tmp_path / "j").write_bytes(b'{"i":0}\n{"i"\n\n\xff\x00\n[1]\n{"a":1,"a":2}\n{"x":NaN}\n{"i":1}\n{"i":2')
    found = Lines(FILES, tmp_path / "j", parse)
    assert found.skipped == 0
    assert list(found) == [{"i": 0}, {"i": 1}]
    assert found.skipped == 5
    assert list(newest_first(FILES, tmp_path / "j")) == [{"i": 1}, {"i": 0}]


def test_no_file_has_no_lines(tmp_path: Path) -> None:
    assert lines(tmp_path / "none") == []
    assert list(newest_first(FILES, tmp_path / "none")) == []


@given(
    st.lists(st.integers(0, 40).map(lambda n: b'{"a":"%s"}\n' % (b"x" * n)) | st.sampled_from([b"\n", b"x\n"]), max_size=12),
    st.sampled_from([b"", b"{", b'{"a":1}']),
)  # fmt: skip
def test_both_ways_of_reading_agree_across_blocks(
    tmp_path_factory: pytest.TempPathFactory, texts: list[bytes], tail: bytes
) -> None:
    path = tmp_path_factory.mktemp("j") / "j"
    path.write_bytes(b"".join(texts) + tail)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(journal, "BLOCK", 16)
        forwards = lines(path)
        assert forwards == list(newest_first(FILES, path))[::-1]
    assert len(forwards) == sum(text.startswith(b"{") for text in texts) + (len(tail) > 1)


def test_the_newest_line_is_read_from_the_end_alone(tmp_path: Path) -> None:
    path = tmp_path / "j"
    path.write_bytes(b'{"i":1}\n' * (5 * BLOCK) + b'{"last":true}\n')
    files = Recorder()
    found = newest_first(files, path)
    assert next(found) == {"last": True}
    assert [op.name for op in files.ops] == ["open", "read"]
    found.close()  # type: ignore[attr-defined]
    assert files.ops[-1].name == "close"


def test_each_byte_of_an_endless_line_is_looked_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "j"
    path.write_bytes(b'{"i":1}\n' + b"\0" * 10_000 + b'\n{"i":2}\n' + b"\0" * 10_000)
    seen = [0]

    class Counted(bytes):
        def split(self, *arguments: Any) -> list[bytes]:
            seen[0] += len(self)
            return super().split(*arguments)

        def __add__(self, other: bytes) -> Counted:
            seen[0] += len(other)
            return Counted(super().__add__(other))

    monkeypatch.setattr(journal, "BLOCK", 64)
    monkeypatch.setattr(journal, "read_at", lambda *of, read=journal.read_at: Counted(read(*of)))
    for reading, found in ((lines, [{"i": 1}, {"i": 2}]), (newest, [{"i": 2}, {"i": 1}])):
        seen[0] = 0
        assert reading(path) == found
        assert seen[0] == path.stat().st_size


def test_a_reader_given_up_closes_the_file(tmp_path: Path) -> None:
    (tmp_path / "j").write_bytes(b'{"i":1}\n{"i":2}\n')
    files = Recorder()
    found = Lines(files, tmp_path / "j", parse)
    assert next(found) == {"i": 1}
    del found
    assert files.ops[-1].name == "close"


class Short(Files):
    """One write takes three bytes only, as on a full disk; reads give one byte at a time."""

    left = 1

    def write(self, handle: Handle, data: bytes | bytearray | memoryview) -> int:
        self.left, short = self.left - 1, self.left > 0
        return super().write(handle, data[:3] if short else data)

    def read(self, handle: Handle, into: memoryview, offset: int) -> int:
        return super().read(handle, into[:1], offset)


def test_a_short_write_is_an_error_and_the_next_line_starts_afresh(tmp_path: Path) -> None:
    path = tmp_path / "j"
    files = Short()
    book = opened(path, files)
    with pytest.raises(OSError, match="3 of 8 bytes were written") as caught:
        book.append({"i": 0})
    assert (caught.value.errno, caught.value.filename) == (errno.ENOSPC, str(path))
    book.append({"i": 1})
    book.append({"i": 2})
    book.close()
    assert path.read_bytes() == b'{"i\n{"i":1}\n{"i":2}\n'
    assert list(newest_first(files, path)) == [{"i": 2}, {"i": 1}]


def test_a_failed_write_names_the_file_and_the_next_line_is_good(tmp_path: Path) -> None:
    path = tmp_path / "j"
    broken = [True]

    def hook(index: int, op: Op) -> None:
        if op.name == "write" and broken.pop() if broken else False:
            raise OSError(errno.EIO, "broken")

    book = opened(path, Recorder(hook))
    with pytest.raises(OSError, match="broken") as caught:
        book.append({"i": 0})
    assert caught.value.filename == str(path)
    book.append({"i": 1})
    book.close()
    assert lines(path) == [{"i": 1}]


def test_what_is_no_json_is_refused_and_nothing_is_written(tmp_path: Path) -> None:
    book = opened(tmp_path / "j")
    with pytest.raises(TreeError, match=r"^journal/a: builtins\.set is no"):
        book.append({"a": {1}})
    book.append({"i": 1})
    book.close()
    assert (tmp_path / "j").read_bytes() == b'{"i":1}\n'


def test_a_file_that_cannot_be_looked_at_is_closed_again(tmp_path: Path) -> None:
    def hook(index: int, op: Op) -> None:
        if op.name == "size":
            raise OSError(errno.EIO, "broken")

    files = Recorder(hook)
    with pytest.raises(OSError, match="broken"):
        opened(tmp_path / "j", files)
    assert files.ops[-1].name == "close"


@pytest.mark.parametrize("name", ["run.lock", "journal.jsonl"])
def test_a_file_with_another_name_is_replaced_by_a_copy_of_its_own_and_told_once(
    tmp_path: Path, caplog: Any, name: str
) -> None:
    def train(epochs: int) -> None:
        with Run(tmp_path / "run", state={"w": 0}, durability="process", stop=None) as run:
            for _ in run.epochs(epochs):
                run.report(val_loss=1.0)

    train(1)
    other = tmp_path / "backup"
    os.link(tmp_path / "run" / name, other)
    before = other.read_bytes()
    train(2)
    train(3)
    told = f"{name} had another name, as in a backup by cp -al, and became a copy of this run's own: what is written "
    assert [message.count(told) for message in caplog.messages if "another name" in message] == [1]
    assert (other.read_bytes(), other.stat().st_nlink) == (before, 1)
    lines = list(Reader(tmp_path / "run").journal())
    assert [line["event"] for line in lines if line["event"] in ("start", "resume")] == [
        "start",
        "resume",
        "resume",
    ]
    assert [line["event"] for line in lines].count("noticed") == 1


def test_a_copy_stands_though_the_linked_file_fails_to_close(tmp_path: Path) -> None:
    class Failing(Files):
        closed: list[int] = []  # noqa: RUF012

        def close(self, handle: Handle) -> None:
            super().close(handle)
            self.closed.append(handle.fd)
            if len(self.closed) == 2:  # after the copy was written
                raise OSError(errno.EIO, "no answer")

    path, other = tmp_path / "journal.jsonl", tmp_path / "backup"
    path.write_bytes(b'{"event": "start"}\n')
    os.link(path, other)
    files = Failing()
    made = opened(path, files)
    made.append({"event": "close"})
    made.close()
    assert made.linked
    assert len(files.closed) == 3  # the copy's, the linked file's once, the journal's
    assert [line["event"] for line in lines(path)] == ["start", "close"]
    assert other.read_bytes() == b'{"event": "start"}\n'

from __future__ import annotations

import gzip
import io
import os
import sys

import pytest

from stopctl.curves.recording import CurveError
from stopctl.curves.source import STDIN, read_source
from support.logs import points, read

TEXT = "epoch,val_loss\r\n1,3\r\n2,2\r\n3,1\r\n"


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "ascii"])
def test_a_text_is_read_whatever_its_encoding(tmp_path, encoding):
    (tmp_path / "a.csv").write_bytes(TEXT.encode(encoding))
    assert points(read(tmp_path / "a.csv").curves[0]) == [(1, 3), (2, 2), (3, 1)]


def test_ends_of_lines_are_those_of_any_system(tmp_path):
    for i, end in enumerate(("\n", "\r\n", "\r")):
        (tmp_path / f"{i}.csv").write_bytes(TEXT.replace("\r\n", end).encode())
        assert read_source(tmp_path / f"{i}.csv").lines == ("epoch,val_loss", "1,3", "2,2", "3,1", "")


def test_latin_1_is_said_with_its_line(tmp_path):
    (tmp_path / "a.csv").write_bytes(
        TEXT.replace("epoch,", "epoch,gr\u00f6\u00dfe,")
        .replace(",3", ",1,3")
        .replace(",2", ",1,2")
        .replace(",1\r", ",1,1\r")
        .encode("latin-1")
    )
    found = read(tmp_path / "a.csv", column="val_loss")
    assert points(found.curves[0]) == [(1, 3), (2, 2), (3, 1)]
    assert found.notes == (f"{tmp_path / 'a.csv'}: line 1 is not UTF-8: read as Latin-1",)


def test_gzipped_by_name_or_by_content(tmp_path):
    for name in ("a.csv.gz", "b.csv"):
        (tmp_path / name).write_bytes(gzip.compress(TEXT.encode()))
        assert len(read(tmp_path / name).curves[0].values) == 3


def test_standard_input_is_read_and_sniffed(monkeypatch):
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(TEXT.encode())))
    (curve,) = read(STDIN).curves
    assert (curve.name, points(curve)) == ("standard input", [(1, 3), (2, 2), (3, 1)])


@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        ("a.csv", b"epoch\0\0", "is no text: give a run's directory, a log in text, or event files"),
        ("a.csv", b"\xff\xfea", "begins as UTF-16 text and does not go on so"),
        ("a.csv", b"epoch\n\xff\x01\n", "is no text: line 2 has bytes that no text has"),
        ("a.csv.gz", b"plain", "cannot be read: Not a gzipped file"),
        ("a.jsonl.gz", gzip.compress(b"{}", mtime=0)[:-9], "cannot be read"),
    ],
)
def test_what_is_no_text_says_why(tmp_path, name, data, message):
    (tmp_path / name).write_bytes(data)
    with pytest.raises(CurveError, match=message):
        read(tmp_path / name)


def test_a_compressed_log_is_unpacked_up_to_what_it_may_have(tmp_path):
    path = tmp_path / "a.csv.gz"
    path.write_bytes(gzip.compress(TEXT.encode() + b" " * 2_000_000))
    with pytest.raises(
        CurveError, match=r"a\.csv\.gz has more than 2.0 MB when it is unpacked: write --unpack"
    ):
        read_source(path, 2 * 10**6)
    assert read_source(path, 3 * 10**6).lines[1] == "1,3"


@pytest.mark.parametrize("kind", ["fifo", "device", "directory"])
def test_what_is_no_file_is_not_waited_for(tmp_path, kind):
    path = tmp_path / "a.csv"
    if kind == "fifo":
        os.mkfifo(path)
    elif kind == "device":
        path.symlink_to("/dev/zero")
    else:
        path.mkdir()
    with pytest.raises(CurveError, match="is no file: what a program writes is read from standard input, -"):
        read_source(path)

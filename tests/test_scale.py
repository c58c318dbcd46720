"""What an opening does grows with the number of checkpoints alone, a few operations each; never with the journal."""

from __future__ import annotations

import shutil
from collections import Counter
from pathlib import Path

import pytest

from stopctl import DamagedError, Run
from stopctl.store import Reader, files


@pytest.fixture
def done(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """Calls of each file operation, and bytes read by the file's name."""
    counted: Counter[str] = Counter()
    for name in [name for name in vars(files.Files) if not name.startswith("_")]:
        real = getattr(files.Files, name)

        def operation(self, *args, name=name, real=real):
            counted[name] += 1
            result = real(self, *args)
            if name == "read":
                counted[args[0].path.name] += result
            return result

        monkeypatch.setattr(files.Files, name, operation)
    return counted


def trained(directory: Path, epochs: int) -> None:
    with Run(directory, state={"w": 0}, keep=None, stop=None, durability="process") as run:
        for _ in run.epochs(epochs):
            run.report(val_loss=1.0)


def test_an_opening_reads_each_manifest_once(tmp_path, done):
    told = {}
    for number in (10, 30):
        trained(tmp_path / str(number), number)
        done.clear()
        with Run(tmp_path / str(number), state={"w": 0}, keep=None, durability="process"):
            told[number] = Counter(done)
    each = {name: (told[30][name] - told[10][name]) / 20 for name in told[30]}
    reads = {"open": 1, "read": 1, "close": 1, "size": 2}
    assert {name: calls for name, calls in each.items() if calls and name in vars(files.Files)} == reads


def test_a_long_journal_is_not_read_whole(tmp_path, done):
    trained(tmp_path, 3)
    line = b'{"event":"report","epoch":3,"step":0,"seconds":2.0,"metrics":{"val_loss":0.5}}\n'
    with (tmp_path / "journal.jsonl").open("ab") as file:
        file.write(line * 10_000)
    done.clear()
    with Run(tmp_path, state={"w": 0}, keep=None) as run:
        assert run.resumed.epoch == 3
        assert done["journal.jsonl"] <= 66_000


def test_where_the_checkpoints_are_gone_the_newest_saved_line_is_enough(tmp_path, done):
    trained(tmp_path, 3)
    journal = tmp_path / "journal.jsonl"
    journal.write_bytes(b'{"event":"report"}\n' * 50_000 + journal.read_bytes())
    shutil.rmtree(tmp_path / "checkpoints")
    done.clear()
    with pytest.raises(DamagedError, match="the last is epoch-0003-step-000000000-w0001"):
        Run(tmp_path, state={"w": 0}).open()
    assert done["journal.jsonl"] <= 66_000


def test_manifests_are_small(tmp_path):
    trained(tmp_path, 2)
    for info in Reader(tmp_path).list().good:
        assert (info.path / "manifest.json").stat().st_size < 2048

"""Every way to save really saves and reads back, and the table says what was measured."""

from __future__ import annotations

import json
from contextlib import ExitStack
from pathlib import Path

import pytest
import save
from save import CASES, OURS, RAW, Told, measure, table

SIZE = 1_600_000
FAST = [RAW, *OURS, "torch.save", "safetensors"]


@pytest.fixture(autouse=True)
def _no_sync(monkeypatch):
    monkeypatch.setattr(save.os, "sync", lambda: None)  # the whole machine would wait


@pytest.mark.long
def test_every_case_is_measured_in_every_round(tmp_path):
    told, skipped = measure(FAST, SIZE, 2, tmp_path)
    assert skipped == []
    assert list(told) == FAST
    for name, one in told.items():
        assert len(one.total) == len(one.blocked) == len(one.resume) == len(one.written) == 2
        assert all(0 < blocked <= total for blocked, total in zip(one.blocked, one.total, strict=True))
        assert "trained" in name or min(one.written) >= 0.8 * SIZE


def test_where_most_is_frozen_little_is_written(tmp_path):
    told, _ = measure(["stopctl: Run.report, 1 % trained"], 4 * SIZE, 2, tmp_path)
    (one,) = told.values()
    assert max(one.written) < SIZE / 4


@pytest.mark.parametrize("name", [RAW, "stopctl: Store.commit", "torch.save", "safetensors"])
def test_what_is_read_back_is_what_was_saved_last(tmp_path, name):
    with ExitStack() as stack:
        case = CASES[name](SIZE, tmp_path, stack)
        told = []
        for i in range(2):
            case.touch()
            cost = case.save(tmp_path / f"save{i}")
            loaded = case.load(tmp_path / f"save{i}")
            told.append(
                loaded[0]["model"]["layer7"].data.tobytes() if isinstance(loaded, tuple) else str(loaded)
            )
        assert cost.written >= SIZE
        assert told[0] != told[1] or told == ["None", "None"]


def test_a_peer_that_is_not_installed_is_skipped_and_said(tmp_path, monkeypatch):
    def lacking(*_):
        raise ImportError("No module named 'orbax'")

    monkeypatch.setitem(CASES, "orbax StandardCheckpointer", lacking)
    told, skipped = measure([RAW, "orbax StandardCheckpointer"], SIZE, 1, tmp_path)
    assert list(told) == [RAW]
    assert skipped == ["orbax StandardCheckpointer: No module named 'orbax'"]


def test_the_table_has_medians_spread_and_ratios():
    told = {
        RAW: Told([0.2, 0.1, 0.4], [0.2, 0.1, 0.4], [0.5, 0.5, 0.5], [200_000_000] * 3),
        "stopctl: Store.commit": Told(
            [0.3, 0.1, 0.2], [0.01, 0.02, 0.03], [0.4, 0.5, 0.6], [200_000_000] * 3
        ),
    }
    assert table(told, 200_000_000, markdown=True).splitlines()[2:] == [
        "| raw write + fsync; plain read + SHA-256 | 200.0 | 0.200 [0.100..0.400] | 1.00 | 1.00x | 200 [100..400] | 1.000x | "
        "0.500 [0.500..0.500] | 1.00x |",
        "| stopctl: Store.commit | 200.0 | 0.200 [0.100..0.300] | 1.00 | 1.00x | 20.0 [10.0..30.0] | 0.100x | "
        "0.500 [0.400..0.600] | 1.00x |",
    ]
    assert "| - |" in table({"torch.save": told[RAW]}, 1, markdown=True)


@pytest.mark.long
def test_saving_beside_training_is_measured_for_the_peers_too(tmp_path):
    told, skipped = measure(["DCP save", "DCP async_save"], SIZE, 1, tmp_path)
    assert (list(told), skipped) == (["DCP save", "DCP async_save"], [])
    assert min(told["DCP async_save"].written) > SIZE


@pytest.mark.slow
def test_all_cases_from_the_shell(script, tmp_path):
    options = ["--sizes", 1.6, "--rounds", 1, "--directory", tmp_path]
    data = json.loads(script("save.py", *options, "--json"))
    (cases,) = data["bytes"].values()
    assert {*cases, *(text.partition(":")[0] for text in data["skipped"])} >= set(CASES)
    assert list(Path(tmp_path).iterdir()) == []


def test_tables_are_printed_for_people(capsys, tmp_path):
    assert (
        save.main(["--sizes", "1.6", "--rounds", "1", "--cases", "safetensors", "--directory", str(tmp_path)])
        == 0
    )
    told = capsys.readouterr().out
    assert told.startswith("2 MB:\nsaved")
    assert "medians of 1 rounds" in told
    assert save.main(["--sizes", "0.2", "--rounds", "1", "--cases", RAW, "--markdown"]) == 0
    assert capsys.readouterr().out.startswith("### 0.2 MB\n\n| saved |")

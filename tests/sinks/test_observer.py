"""Observers are told what the journal is told, and cannot hurt the run."""

from __future__ import annotations

import json

import pytest

from stopctl import Every, Patience, Run, SettingError


class Listener:
    def __init__(self):
        self.lines = []
        self.closed = 0

    def on_event(self, line):
        self.lines.append(line)

    def close(self):
        self.closed += 1


class Broken(Listener):
    def on_event(self, line):
        super().on_event(line)
        if line["event"] == "report":
            line["metrics"].clear()
            raise RuntimeError("no network")


def train(directory, *observers, epochs=3, losses=(0.5, float("nan"), 0.25)):
    state = {"weight": 0.0}
    with Run(directory, state=state, stop=Patience(5), save=Every(epochs=1), observers=observers) as run:
        for epoch in run.epochs(epochs):
            run.report(val_loss=losses[epoch - 1])


def journal(directory):
    return [json.loads(line) for line in (directory / "journal.jsonl").read_text().splitlines()]


def test_an_observer_gets_the_lines_of_the_journal(tmp_path):
    listener = Listener()
    train(tmp_path / "run", listener)
    assert listener.lines == journal(tmp_path / "run")
    assert {line["event"] for line in listener.lines} == {"start", "report", "saved", "close"}
    assert listener.closed == 1


def test_one_that_raises_is_reported_once_and_told_no_more(tmp_path, caplog):
    broken, other = Broken(), Listener()
    train(tmp_path / "run", broken, other)
    assert [line["event"] for line in broken.lines] == ["start", "report"]
    assert broken.closed == 0
    assert other.lines == journal(tmp_path / "run")  # what the first did to its copy is not seen here
    told = [record for record in caplog.records if "told no more" in record.getMessage()]
    assert len(told) == 1
    assert "Broken" in told[0].getMessage()
    assert "no network" in str(told[0].exc_info[1])


def test_one_that_raises_when_closed_does_not_keep_the_run_open(tmp_path, caplog):
    class Stuck(Listener):
        def close(self):
            raise OSError("disk full")

    train(tmp_path / "run", Stuck())
    assert "Stuck failed" in caplog.text
    train(tmp_path / "run", epochs=4, losses=(0, 0, 0, 0.125))


@pytest.mark.parametrize("wrong", [Listener, "metrics.csv", object()])
def test_what_is_no_observer_is_an_error_at_once(tmp_path, wrong):
    with pytest.raises(SettingError, match=r"observers=\[.*on_event\(line\) and close\(\)"):
        Run(tmp_path / "run", state={}, observers=[wrong])
    assert not (tmp_path / "run").exists()

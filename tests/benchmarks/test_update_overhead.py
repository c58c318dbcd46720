from __future__ import annotations

import json
from typing import Any

import pytest
import update_overhead
from update_overhead import (
    CONTROLLERS,
    OURS,
    PEERS,
    HandWritten,
    cases,
    made_up,
    measure,
    recorded,
    report,
)

from stopctl import EarlyStopper


class Counted(list[float]):
    """Values that know how many of them were looked at."""

    seen = 0

    def __iter__(self) -> Any:
        for value in super().__iter__():
            self.seen += 1
            yield value


@pytest.mark.parametrize("name", OURS)
@pytest.mark.parametrize("kind", ["flat", "falling", "alternating"])
def test_a_case_looks_at_every_value(name, kind):
    values = Counted(made_up()[kind][0])
    OURS[name](values)()
    assert values.seen == len(values) == update_overhead.UPDATES


@pytest.mark.parametrize("name", OURS)
def test_a_case_reads_the_verdict(name, monkeypatch):
    monkeypatch.setattr(update_overhead, "NEVER", 3)
    values = Counted([0.5, 0.4, 0.6, 0.3, 0.3, 0.3, 0.3, 0.3])
    OURS[name](values)()
    assert values.seen == 7


def test_the_hand_written_class_decides_like_ours():
    ours, theirs = EarlyStopper(patience=3, min_delta=0.25), HandWritten(patience=3, min_delta=0.25)
    for value in [4.0, 3.5, 3.5, 3.0, 3.0, 2.5, 2.5, 2.5]:
        assert theirs.step(value) is (ours.update(value).stop is not None)
        assert (theirs.best, theirs.wait) == (ours.reference, ours.wait)


@pytest.mark.parametrize("name", PEERS)
def test_a_peer_runs_through_the_curve(name):
    pytest.importorskip(name)
    PEERS[name][2]()([0.5, 0.4, 0.6, 0.3])()


def test_recorded_curves_are_signed_and_spread_over_the_file(curve_file):
    curves = recorded(curve_file, most=3)
    assert [len(values) for values in curves] == [30, 20, 25]
    every = recorded(curve_file)
    assert len(every) == 6
    assert min(every[1]) > 0  # reported as negative, larger is better


def test_cases_take_turns_and_are_fresh_in_every_round():
    made, ran = [], []

    def case(name: str) -> Any:
        def make(values: Any) -> Any:
            made.append(name)
            return lambda: ran.append((name, values))

        return make

    curves = [[1.0], [2.0, 3.0]]
    told = measure({name: case(name) for name in "abc"}, curves, rounds=4)
    assert [name for name, values in ran if values is curves[0]] == list("abcbcacababc")
    assert len(made) == len(ran) == 4 * 3 * 2
    assert list(told) == list("abc")


@pytest.mark.parametrize("name", CONTROLLERS)
def test_long_runs_count_every_report_and_answer_every_save(name):
    controller = CONTROLLERS[name]()
    report(controller, 1, 100, 200)
    assert controller.progress.reports == 100
    assert controller.stopped is None
    assert controller.state_dict()["committed"]["epoch"] == (100 if "save" in name else 0)


def test_peers_that_cannot_run_are_skipped_and_told(monkeypatch):
    def broken() -> Any:
        raise RuntimeError("no such device")

    monkeypatch.setitem(PEERS, "flax", ("no-such-package", "update", broken))
    monkeypatch.setitem(PEERS, "keras", ("pytest", "update", broken))
    found, skipped = cases(["flax", "keras"])
    assert list(found) == list(OURS)
    assert skipped == ["flax is not installed", "keras cannot be imported: RuntimeError: no such device"]


def test_one_command_measures_made_up_and_recorded_curves(script, curve_file):
    told = script(
        "update_overhead.py", "--curves", curve_file, "--rounds", 1, "--lengths", 100, "--peers", "--json"
    )
    data = json.loads(told)
    assert list(data["updates"]) == ["flat", "falling", "alternating", "real"]
    assert all(list(part) == list(OURS) for part in data["updates"].values())
    assert {name: list(part) for name, part in data["reports"].items()} == {
        name: ["100"] for name in CONTROLLERS
    }
    assert (data["rounds"], data["skipped"]) == (1, [])

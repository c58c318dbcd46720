"""The model of large runs behaves as runs must, its parameters are measured, and its tables say what it found."""

from __future__ import annotations

import json
import math
from dataclasses import fields, replace
from itertools import pairwise

import calibrate
import numpy as np
import pytest
import scale
from cluster import (
    AFTER,
    BEFORE,
    BETWEEN,
    GROUPED,
    LIMITS,
    REPORT,
    RESUME,
    STEPS,
    TODAY,
    Site,
    binding,
    connecting,
    connections,
    daly,
    first,
    held,
    level,
    levels,
    rate,
    resume,
    save,
    seen,
    share,
    simulate,
    total,
    useful,
    young,
)

from stopctl import Every, Run
from stopctl.state.groups import groups_of
from stopctl.team.inputs import Rhythm
from support.teams import together

SITE = Site()
MEASURED = {one.name for one in fields(Site) if "what" in one.metadata}
HOUR = 3600.0


@pytest.mark.parametrize("design", STEPS.values(), ids=STEPS)
@pytest.mark.parametrize("ranks", [1, 7, 1_000])
def test_more_bytes_never_make_a_save_or_a_resume_faster(design, ranks):
    spent = [np.zeros(1)]
    back, others = [0.0], [0.0]
    for size in (1e6, 1e9, 1e12, 1e15):
        site = replace(SITE, ranks=ranks, bytes=size, spread=0.5)
        spent.append(total(save(site, design, seed=3, draws=5)))
        back.append(sum(resume(site, design).values()))
        others.append(sum(resume(site, design, same=False).values()))
    assert all((more >= less).all() for less, more in pairwise(spent))
    assert back == sorted(back)
    assert others == sorted(others)
    assert all(same <= other for same, other in zip(back, others, strict=True))


@pytest.mark.parametrize(
    "name",
    [
        "replicated",
        "leaves",
        "spread",
        "create",
        "commit",
        "unlink",
        "look",
        "stat",
        "listed",
        "check",
        "hop",
        "trip",
        "outline",
        "cover",
        "tell",
        "message",
    ],
)
def test_nothing_that_costs_more_makes_a_save_faster(name):
    less = replace(SITE, ranks=300)
    more = replace(less, **{name: 5 * getattr(less, name)})
    assert total(save(more, TODAY, seed=1)).mean() >= total(save(less, TODAY, seed=1)).mean()


def test_with_files_of_endless_bandwidth_making_them_binds():
    site = replace(SITE, aggregate=1e30, client=1e30, hash=1e30)
    phases = save(site, TODAY, seed=0, draws=3)
    name, phase = binding(phases)
    assert (name, phase.waits) == ("files are created", "metadata server")
    assert phases["parts are written"].seconds.max() < 1e-6


@pytest.mark.parametrize(
    ("given", "waits"),
    [
        ({"aggregate": 1e9}, "the file system's total rate"),
        ({"client": 1e6, "aggregate": 1e15}, "a rank's link to the files"),
        ({"hash": 1e6, "aggregate": 1e15}, "hashing"),
    ],
)
def test_writing_waits_for_what_is_slowest(given, waits):
    name, phase = binding(save(replace(SITE, ranks=64, **given), TODAY, seed=0))
    assert (name, phase.waits) == ("parts are written", waits)


def test_the_slowest_rank_counts():
    even = replace(SITE, spread=0.0, aggregate=1e30)
    seconds = save(even, TODAY, seed=0)["parts are written"].seconds
    rank0 = (even.bytes / even.ranks + even.replicated) / min(even.client, even.hash)
    assert seconds == pytest.approx(rank0)
    uneven = replace(even, spread=0.5, replicated=0.0)
    seconds = save(uneven, TODAY, seed=0)["parts are written"].seconds
    factor = seconds * min(uneven.client, uneven.hash) * uneven.ranks / uneven.bytes
    assert np.log(np.median(factor)) / 0.5 == pytest.approx(3.85, abs=0.2)  # the largest of 10,000 normals


def test_a_file_system_is_shared_fairly_and_wholly():
    caps = np.array([1.0, 4.0, 7.0, 100.0])
    for rate_of_all in (0.5, 6.0, 20.0, 60.0):
        assert np.minimum(caps, level(caps, rate_of_all)).sum() == pytest.approx(rate_of_all)
    assert level(caps, 1000.0) == math.inf


def test_a_ring_is_as_slow_as_it_is_long_and_a_tree_is_not():
    one, ring, most, tree, more = (share(replace(SITE, ranks=n)) for n in (1, 8, 64, 65, 10_000))
    assert one == 0.0
    assert most / ring == pytest.approx(9.0, rel=0.1)
    assert tree < most
    assert more < 20 * tree
    assert [levels(n) for n in (1, 64, 65, 256, 257, 10_000)] == [1, 1, 4, 4, 5, 7]


def test_the_model_s_tree_is_the_code_s():
    for ranks in (2, 64, 65, 512, 513, 10_000):
        groups = groups_of(0, ranks)
        assert levels(ranks) == len(groups)
        assert connections(replace(SITE, ranks=ranks)) >= sum(len(group) - 1 for group in groups)
        asked = sum(len(group) for rank in range(ranks) for group in groups_of(rank, ranks))
        assert connecting(replace(SITE, ranks=ranks, ask=1.0)) == pytest.approx(asked, rel=0.15)


def test_a_run_fails_as_often_as_its_nodes_together():
    assert SITE.mtbf == SITE.node_mtbf / 1250
    assert replace(SITE, ranks=1).mtbf == SITE.node_mtbf


def test_daly_s_interval_is_the_published_one():
    minutes = [daly(300, hours * HOUR) / 60 for hours in (24, 6, 0.25)]  # figures 3 to 5 of Daly (2006)
    assert minutes == pytest.approx([117, 57, 9.1], rel=0.01)
    assert daly(1.0, 1e8) == pytest.approx(young(1.0, 1e8), rel=0.001)


def test_without_failures_saving_alone_costs():
    assert useful(600, 6, 60, 1e12) == pytest.approx(600 / 606, rel=1e-6)
    assert useful(10.0, 1e6, 60.0, 100.0) < 1e-100


@pytest.mark.parametrize(("cost", "restart"), [(5.0, 60.0), (120.0, 1_800.0)])
def test_simulated_failures_cost_what_the_formula_says(cost, restart):
    intervals = [daly(cost, 5 * HOUR) * factor for factor in (0.05, 0.5, 1.0, 2.0, 10.0)]
    shares = simulate(intervals, np.array([cost]), restart, 5 * HOUR, 40_000, seed=2)
    wanted = [useful(each, cost, restart, 5 * HOUR) for each in intervals]
    assert shares == pytest.approx(wanted, abs=0.01)


def test_a_failure_takes_back_what_was_not_saved():
    mtbf = 100.0
    gaps = np.random.default_rng(7).exponential(mtbf, 1000)
    (share,) = simulate([20.0], np.array([5.0]), 10.0, mtbf, 1000, seed=7)
    kept = sum(20.0 * max(0, math.floor((gap - 10.0) / 25.0)) for gap in gaps)
    assert share == pytest.approx(kept / gaps.sum(), rel=1e-9)


@pytest.mark.parametrize("design", [TODAY, GROUPED], ids=["today", "grouped"])
def test_the_simulated_optimum_is_near_daly_s(design):
    one = rate(SITE, design, 20_000, seed=4)
    assert one.optimum == pytest.approx(daly(one.cost, one.mtbf), rel=0.12)
    assert max(one.simulated) == pytest.approx(max(one.formula), abs=0.01)


@pytest.mark.parametrize("limit", LIMITS, ids=lambda limit: limit.what)
def test_a_limit_is_passed_where_it_is_said_to_be(limit):
    ranks = first(limit, SITE, TODAY, most=20_000)
    if ranks is None:
        assert limit.value(replace(SITE, ranks=16_000), TODAY) <= limit.most
        return
    at, before = (limit.value(replace(SITE, ranks=n), TODAY) for n in (ranks, int(ranks * 0.97) - 1))
    assert before <= limit.most < at


@pytest.mark.parametrize("size", [2, 3])
def test_exchanges_are_as_many_as_the_code_makes(tmp_path, size):
    def life(save):
        def program(team):
            counted, share = [], team.share
            team.share = lambda message: (counted.append(message), share(message))[1]
            with Run(tmp_path, state={"w": 1.0}, team=team, stop=None, save=save) as run:
                passes = iter(run.epochs(9))
                next(passes)
                opening = len(counted)
                run.report(val_loss=1.0)
                next(passes)
                return opening, len(counted) - opening

        return together(size, program)

    saved, again = life(Every(epochs=1)), life(None)
    assert [report - REPORT for _, report in saved] == [BEFORE + BETWEEN + AFTER] * size
    assert again == [(RESUME, REPORT)] * size


@pytest.mark.parametrize("ranks", [10, 1_000, 10_000])
@pytest.mark.parametrize("step", [0.05, 0.7])
def test_a_signal_is_seen_as_late_as_the_rhythm_of_exchanges_makes_it(ranks, step):
    exchange = share(replace(SITE, ranks=ranks))
    rhythm, clock, shared = Rhythm(), 0.0, []
    for number in range(1, 60_000):
        clock += step
        if rhythm.due(number):
            rhythm.beat(number, clock, exchange)
            clock += exchange
            shared.append(clock)
    gap = max(b - a for a, b in pairwise(shared[20:]))
    assert gap + exchange == pytest.approx(seen(replace(SITE, ranks=ranks)), abs=step + exchange)
    assert exchange / gap < 0.0125
    assert seen(replace(SITE, ranks=1)) == 0.0


def test_other_numbers_of_ranks_look_into_as_few_parts_however_many_there_are():
    less, more = (replace(SITE, ranks=n) for n in (100, 10_000))
    tables = "part manifests are read"
    assert resume(less, TODAY)[tables] == resume(more, TODAY)[tables] == SITE.read
    assert resume(less, TODAY, same=False)[tables] == resume(more, TODAY, same=False)[tables] == 4 * SITE.read
    assert held(less, same=False) == held(more, same=False) == 4 * held(more)
    found = [resume(site, TODAY, same=False)["who has what is found"] for site in (less, more)]
    assert found[1] == pytest.approx(100 * found[0])
    assert resume(more, TODAY)["who has what is found"] == 0.0


def test_ranks_that_have_written_no_pieces_look_for_those_that_have():
    few = replace(SITE, ranks=1_000, shards=250)
    assert resume(few, TODAY)["part manifests are read"] == pytest.approx(3 * SITE.read)
    assert resume(few, TODAY)["who has what is found"] > 0.0


def test_all_but_gloo_is_measured_here(tmp_path):
    (tmp_path / "disk").mkdir()
    told = calibrate.disk(tmp_path / "disk", 1 << 20) | calibrate.cores(20) | calibrate.parts(tmp_path, 20, 1)
    assert told.keys() == MEASURED - {"hop", "link", "ask"}
    assert all(0 < value < math.inf for value in told.values())
    assert 20 * 60 < told["table"] < 20 * 400
    assert replace(SITE, **told).check == told["check"]


def test_where_pytorch_is_not_installed_the_step_is_the_documents(tmp_path, monkeypatch):
    monkeypatch.setitem(scale.sys.modules, "torch.distributed", None)
    assert calibrate.hops(tmp_path) == {}


@pytest.fixture
def quick(monkeypatch):
    """Measured at once, and few ranks in the tables of growth."""
    monkeypatch.setattr(scale, "measure", lambda leaves, directory, tick: {"hash": 1e9, "hop": 1e-4})
    monkeypatch.setattr(scale, "RANKS", (1, 10))
    monkeypatch.setattr(scale, "LIMITS", LIMITS[:1])


SMALL = ["--ranks", "40", "--failures", "200"]


def test_tables_are_printed_for_people(quick, capsys):
    assert scale.main([*SMALL, "--set", "restart=60"]) == 0
    told = capsys.readouterr().out
    assert told.startswith("Parameters:\nparameter")
    assert "What breaks first:\nwhat breaks" in told
    assert "200 failures, 20 saves drawn" in told
    assert scale.main([*SMALL, "--markdown"]) == 0
    assert capsys.readouterr().out.startswith("### Parameters\n\n| parameter |")


@pytest.mark.slow
def test_everything_from_the_shell(script, tmp_path):
    data = json.loads(script("scale.py", *SMALL, "--directory", tmp_path, "--set", "leaves=50", "--json"))
    assert set(data["measured"]) == MEASURED
    assert list(tmp_path.iterdir()) == []

"""The tables that are readable without scripts."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest

from stopctl import Run
from stopctl.report import tables
from stopctl.report.data import Row, page_run


@pytest.fixture
def run(tmp_path):
    with Run(tmp_path / "run", state={"w": 0}, durability="process", stop=None) as run:
        for _ in run.epochs(3):
            run.report(val_loss=1.0)
    return page_run(tmp_path / "run")


def texts(html):
    return re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", html)).strip()


def test_reasons_come_newest_first_a_few_at_once_and_not_without_end(run):
    many = replace(run, reasons=tuple(Row(i, f"reason {i} <b>") for i in range(1, 251)))
    html = tables.decisions([many])
    told = texts(html)
    assert told.startswith("epoch what was decided, the newest first 250 reason 250 &lt;b&gt; 249 reason 249")
    assert "92 earlier ones" in told
    assert "151 reason 151" in told
    assert "150 reason 150" not in told
    assert told.endswith("These are the newest 100 of 250; stopctl explain tells all.")
    assert html.index("<details>") > html.index("reason 243") > 0


def test_where_there_is_nothing_it_is_said(run):
    empty = replace(run, reasons=(), checkpoints=())
    assert texts(tables.decisions([empty])) == "Nothing was decided yet."
    assert texts(tables.checkpoints([empty])) == "There are none."
    assert texts(tables.decisions([empty, empty])) == " ".join(["run Nothing was decided yet."] * 2)
    assert texts(tables.checkpoints([empty, empty])) == " ".join(["run There are none."] * 2)


def test_checkpoints_say_what_they_are(run):
    told = texts(tables.checkpoints([run]))
    assert told.startswith("epoch val_loss size step saved because name 3 latest 1 ")
    assert "1 best 1 " in told  # the first of equals, as restore_best() has it
    assert told.count("best") == 2


def test_rules_side_by_side_mark_what_differs(run):
    other = replace(run, name="other", facts={**run.facts, "notes": {"lr": "0.1"}})
    html = tables.rules([run, other])
    assert texts(html).startswith("run other rules goal Minimize(&#x27;val_loss&#x27;) save")
    assert html.count('class="differs"') == 1
    assert "lr" not in texts(tables.rules([run]))  # None in all of them


def test_many_runs_say_in_their_table_why_one_broke_off_and_have_common_rules_once(run):
    broken = replace(run, state="interrupted", reason="closed by ValueError: <b>")
    runs = [replace(one, name=f"run-{i}", notes={"lr": i}) for i, one in enumerate([run, broken] * 5)]
    html = tables.runs(runs)
    assert texts(html).count("interrupted closed by ValueError: &lt;b&gt;") == 5
    assert texts(html).startswith("run best epoch state lr run-0 1 3 finished 0 ")
    assert texts(tables.rules(runs)).count("Minimize(") == 1

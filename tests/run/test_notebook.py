"""A real Jupyter kernel: what a cell shows, and a cell that is executed again goes on."""

from __future__ import annotations

import pytest

FIRST = """
import logging, os, pathlib, signal, sys, stopctl
from stopctl import Every, LockedError, Run
root = pathlib.Path("runs")
def once(name):
    new = not pathlib.Path(name).exists()
    pathlib.Path(name).touch()
    return new
def begin(name):
    return Run(root / name, state={"w": 0.0}, save=Every(epochs=1), stop=stopctl.Patience(9))
def wholly(name):
    lines = [line for line in (root / name / "journal.jsonl").read_text().splitlines() if '"report"' in line]
    print("reports", len(lines))
"""
BLOCK = """
run = begin("block")
with run:
    for epoch in run.epochs(4):
        run.report(val_loss=1 / epoch)
        if epoch == 2 and once("block"):
            {END}
wholly("block")
"""
OPEN = """
run = begin("open").open()
for epoch in run.epochs(4):
    run.report(val_loss=1 / epoch)
    if epoch == 2 and once("open"):
        {END}
run.close()
wholly("open")
"""
NAMED = """
run = begin("named").open()
passes = enumerate(run.epochs(4))
for _, epoch in passes:
    for batch in (batches := iter(run.batches([1, 2]))):
        pass
    run.report(val_loss=1 / epoch)
    if epoch == 2 and once("named"):
        {END}
run.close()
wholly("named")
"""
CALLED = """
def fit():
    run = begin("called").open()
    passes = iter(run.epochs(4))
    for epoch in passes:
        run.report(val_loss=1 / epoch)
        if epoch == 2 and once("called"):
            {END}
    run.close()
fit()
wholly("called")
"""
LIVING = """
with begin("living") as run:
    for epoch in run.epochs(1):
        try:
            begin("living").open()
        except LockedError as error:
            print("refused")
        run.report(val_loss=1.0)
"""
SPLIT = """
run = begin("split").open()
"""
SPLIT_LOOP = """
for epoch in run.epochs(1):
    try:
        begin("split").open()
    except LockedError as error:
        print("refused")
    run.report(val_loss=1.0)
run.close()
"""
TOLD = "was open in this process still"


@pytest.fixture(scope="module")
def executed(tmp_path_factory):
    """Executes each cell twice in one kernel; gives what both showed."""
    nbclient, nbformat = pytest.importorskip("nbclient"), pytest.importorskip("nbformat")
    folder = tmp_path_factory.mktemp("notebook")
    made = nbformat.v4
    ends = {"BLOCK": "os.kill(os.getpid(), signal.SIGINT)", "OPEN": "raise KeyboardInterrupt"}
    ends |= {"NAMED": "raise KeyboardInterrupt", "CALLED": "1 / 0"}
    sources = {name: globals()[name].replace("{END}", end) for name, end in ends.items()}
    sources |= {"LIVING": LIVING, "SPLIT": SPLIT, "SPLIT_LOOP": SPLIT_LOOP}
    sources |= {name: name for name in SHOWN}
    book = made.new_notebook(
        cells=[made.new_code_cell(FIRST)]
        + [made.new_code_cell(source) for source in sources.values() for _ in range(2)]
    )
    for cell in book.cells:  # the same whatever the day
        cell.id = f"c{book.cells.index(cell)}"
    with pytest.MonkeyPatch.context() as patch:
        for name in ("HOME", "IPYTHONDIR", "JUPYTER_CONFIG_DIR", "JUPYTER_DATA_DIR", "JUPYTER_RUNTIME_DIR"):
            patch.setenv(name, str(folder))
        nbclient.NotebookClient(
            book,
            kernel_name="python3",
            timeout=60,
            allow_errors=True,
            resources={"metadata": {"path": str(folder)}},
        ).execute()
    assert book.cells[0].outputs == []
    cells = iter(book.cells[1:])
    return {name: [next(cells).outputs, next(cells).outputs] for name in sources}


def texts(outputs):
    return "".join(out.get("text", "") for out in outputs), [out.ename for out in outputs if "ename" in out]


@pytest.mark.parametrize(
    ("name", "error", "told"),
    [
        ("BLOCK", "KeyboardInterrupt", False),
        ("OPEN", "KeyboardInterrupt", True),
        ("NAMED", "KeyboardInterrupt", True),
        ("CALLED", "ZeroDivisionError", True),
    ],
)
def test_a_cell_that_was_broken_off_goes_on_when_it_is_executed_again(executed, name, error, told):
    (_, first), (text, second) = map(texts, executed[name])
    assert (first, second) == ([error], [])
    assert "reports 4" in text  # each epoch once
    assert (TOLD in text) is told


@pytest.mark.parametrize("name", ["LIVING", "SPLIT_LOOP"])
def test_two_living_runs_on_one_directory_are_refused(executed, name):
    text, errors = texts(executed[name][0])
    assert "refused" in text
    assert errors == []


SHOWN = {
    "run": ["<b>Run runs/split</b>", "closed", "Patience(9)"],
    "begin('block')": ["not open", "<polyline"],
    "run.checkpoints[-1]": ["<b>epoch-0001", "path"],
    "begin('block').open().checkpoints[-1]": ["<b>epoch-0004", "<circle", "<polyline"],
    "run.progress": ["<b>Progress</b>"],
    "stopctl.EarlyStopper(patience=3)": ["<b>EarlyStopper</b>", "Patience(3)"],
    "stopctl.EarlyStopper(patience=3).update(1.0)": ["<b>Decision</b>", "yes"],
}


@pytest.mark.parametrize("name", SHOWN)
def test_what_a_cell_shows(executed, name):
    (shown,) = [out.data for out in executed[name][0] if out.output_type == "execute_result"]
    for part in SHOWN[name]:
        assert part in shown["text/html"]
    assert "\n" not in shown["text/plain"]
    assert len(shown["text/plain"]) < 400

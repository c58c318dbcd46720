"""The user's own metric, imported and called."""

from __future__ import annotations

import sys

import numpy as np
import pytest

from stopctl import MetricError, SettingError, StopctlError
from stopctl.export import metric, scores

SOURCE = """
import helper
def size(arrays):
    return sum(array.size for array in arrays.values())
def several(arrays):
    return {"a": 1, "b": float("nan")}
def late(arrays):
    import later
    return later.VALUE
def broken(arrays):
    return {}["accuracy"]
def wrong(arrays):
    return "97 %"
number = 3
"""


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    (tmp_path / "my_judge.py").write_text(SOURCE)
    (tmp_path / "helper.py").write_text("")
    (tmp_path / "later.py").write_text("VALUE = 2.5")
    (tmp_path / "bad_judge.py").write_text("x = 1\n1 / 0\n")
    (tmp_path / "poor_judge.py").write_text("import a_library_that_is_not_there\n")
    yield tmp_path
    for name in ("my_judge", "helper", "later", "bad_judge", "poor_judge"):
        sys.modules.pop(name, None)


ARRAYS = {"w": np.ones((2, 3), "f4")}


def test_a_function_in_the_current_directory_gives_a_number_or_several(here):
    assert scores(metric("my_judge:size"), ARRAYS, "size") == {"size": 6.0}
    assert list(scores(metric("my_judge:several"), ARRAYS, "several")) == ["a", "b"]
    assert scores(metric("my_judge:late"), ARRAYS) == {"value": 2.5}


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("my_judge", "is no module:function, such as judge:accuracy"),
        (":f", "is no module:function"),
        ("judgement:f", "there is no module judgement, neither in .* nor installed"),
        ("my_judge:sise", "my_judge has no function sise"),
        ("my_judge:number", "my_judge has no function number"),
        ("bad_judge:f", r"ZeroDivisionError: division by zero \(bad_judge.py, line 2\)"),
        ("poor_judge:f", "cannot be imported: No module named 'a_library_that_is_not_there'"),
    ],
)
def test_what_cannot_be_imported_is_one_line(here, spec, message):
    with pytest.raises(SettingError, match=message) as error:
        metric(spec)
    assert "\n" not in str(error.value)


def test_a_function_that_fails_says_where(here):
    with pytest.raises(StopctlError, match=r"broken failed: KeyError: 'accuracy' \(my_judge.py, line 11\)"):
        scores(metric("my_judge:broken"), ARRAYS, "broken")


def test_text_is_no_score(here):
    with pytest.raises(MetricError, match="is text"):
        scores(metric("my_judge:wrong"), ARRAYS, "wrong")

"""Objects by name: one, or a dict of several; what else is refused says what to pass."""

from __future__ import annotations

import pytest

from stopctl import SettingError
from stopctl.state.arguments import named, what


def fits(thing):
    return isinstance(thing, str)


def test_one_object_has_the_arguments_name_and_several_have_their_own_behind_it():
    assert named("model", "a", fits, "a str") == {"model": "a"}
    assert named("model", {"x": "a", "y.z": "b"}, fits, "a str") == {"model.x": "a", "model.y.z": "b"}
    assert named("model", None, fits, "a str") == {}


@pytest.mark.parametrize(
    ("given", "required", "text"),
    [
        (None, True, "model is None: pass a str"),
        ({}, True, "model={} is empty: give a model"),
        ({}, False, "model={} is empty: leave it out"),
        (3, False, "model is an int: pass a str"),
        ({"x": None}, False, "model.x is None: pass a str"),
        (str, False, "model is the class str: pass an object, str(...)"),
        *[
            ({key: "a"}, False, f"model={{{key!r}: ...}}: a name is a printable str")
            for key in (1, "", "a/b", "\n")
        ],
    ],
)
def test_anything_else_is_refused_with_what_to_pass(given, required, text):
    with pytest.raises(SettingError) as caught:
        named("model", given, fits, "a str", required=required)
    assert str(caught.value).startswith(text)


def test_an_object_is_told_by_its_kind():
    assert [what(thing) for thing in ([], 1, None)] == ["a list", "an int", "None"]

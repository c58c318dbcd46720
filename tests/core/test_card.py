"""What a notebook shows: escaped, on one line each, and a curve that is inside its picture."""

from __future__ import annotations

import re
from xml.etree import ElementTree

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from stopctl import Controller, EarlyStopper, Minimize, Patience
from stopctl.core.card import EDGE, HEIGHT, POINTS, WIDTH, card, curve
from stopctl.core.decision import Decision, Save, Stop, requested
from stopctl.core.words import figure


def shown(thing):
    """The HTML of an object, parsed, and its text."""
    tree = ElementTree.fromstring(thing._repr_html_())
    return tree, " ".join(" ".join(tree.itertext()).split())


@given(text=st.text())
def test_nothing_that_is_shown_is_read_as_html(text):
    tree = ElementTree.fromstring(
        card(text, {text: text, "none": None}, [text], curve(text, [(1, 1.0), (2, 2.0)]))
    )
    allowed = {"div", "b", "table", "tr", "th", "td", "svg", "polyline"}
    assert {element.tag for element in tree.iter()} == allowed
    assert len(tree.findall("table/tr")) == 1


@given(
    st.lists(st.tuples(st.integers(0, 10**9), st.floats())).map(sorted),
    st.integers(0, 10),
)
@example([(1, -1.7e308), (2, 1.7e308), (3, float("nan"))], 2)
@example([(n, float(n % 7)) for n in range(5 * POINTS)], 5 * POINTS - 1)
@example([(n, float(n == 1)) for n in range(5 * POINTS)], 1)
@example([(1, 5e-324), (1, 5e-324)], 1)
def test_a_curve_stays_inside_its_picture(points, mark):
    finite = [point for point in points if abs(point[1]) < float("inf")]
    drawn = curve("loss", points, mark)
    assert bool(drawn) == (len(finite) >= 2)
    if drawn:
        tree = ElementTree.fromstring(f"<div>{drawn}</div>")
        at = [tuple(map(float, p.split(","))) for p in tree.find("svg/polyline").get("points").split()]
        at += [(float(dot.get("cx")), float(dot.get("cy"))) for dot in tree.findall("svg/circle")]
        assert len(at) <= POINTS + 1
        assert all(EDGE <= x <= WIDTH - EDGE and EDGE <= y <= HEIGHT - EDGE for x, y in at)
        line = at[: len(at) - len(tree.findall("svg/circle"))]
        assert line[0][0] == EDGE
        assert line == sorted(line, key=lambda point: point[0])
        values = [value for _, value in finite]
        says = f"loss from {figure(min(values))} to {figure(max(values))}, {finite[0][0]} to {finite[-1][0]}"
        assert tree.find("div").text == says
        assert len(tree.findall("svg/circle")) == (mark in dict(finite))


def stopper():
    made = EarlyStopper(patience=2)
    for value in (0.5, 0.25, 0.75):
        made.update(value)
    return made


def progress():
    controller = Controller(goal=Minimize("val_loss"), stop=Patience(2))
    controller.report({"val_loss": 0.5, "<i>": 2}, epoch=1, step=7, seconds=3.0)
    return controller.progress


@pytest.mark.parametrize(
    ("thing", "text", "says"),
    [
        (Decision(), "Decision()", ["new best no"]),
        (
            Decision(True, Stop((requested("run.stop", "a<b\n"),)), Save(1, (requested("x", "y"),)), 0.1),
            r"Decision(new_best=True, stop='requested: a<b\n', save='requested: y', lr_factor=0.1)",
            [r"stop requested: a<b\n", "lr factor 0.1"],
        ),
        (
            stopper(),
            "<EarlyStopper Patience(2) | NonFinite(): 3 updates of value, step 3; best 0.25 in epoch 0, step 2; goes on>",
            [
                "updates 3",
                "best 0.25",
                "in update 2",
                "wait 1",
                "stands goes on",
                "Patience(2): 1 of 2 updates",
            ],
        ),
        (
            progress(),
            None,
            ["epoch 1", "step 7", "<i> 2", "best 0.5 (epoch 1, step 7)", "Minimize('val_loss')"],
        ),
    ],
)
def test_what_is_shown_of_what_the_core_gives(thing, text, says):
    _, told = shown(thing)
    for part in says:
        assert part in told
    assert "\n" not in repr(thing)
    assert text in (None, repr(thing))
    if text is None:
        assert re.fullmatch(r"Progress\(goal=Minimize\('val_loss'\), best=0.5, .*\)", repr(thing))

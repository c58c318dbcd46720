"""What trains beside arrays: recorded, held against what is given, and taken anew once."""

from __future__ import annotations

import logging

import pytest

from stopctl import Run, SettingError, StateError
from stopctl.state.config import Config, restructured, structure_told
from stopctl.store import Reader


class Configured:
    """A State with settings, for `Config.given`."""

    def __init__(self, **settings):
        self.given = settings

    def settings(self):
        return self.given

    def structure(self):
        return {}

    def capture(self):
        return {"optimizer.g": {}, "optimizer.d": {}, "scheduler": {}, "model": {}}

    def restore(self, components, *, allow_missing=(), anew=()):
        pass

    def too_short(self, passes, before, planned):
        return []


def given(anew=(), notes=None, **settings):
    return Config.given(Configured(**settings), notes, anew)


def settings(lr=0.1, length=4):
    return {"optimizer.g": {"lr": lr, "class": "SGD"}, "scheduler": {"T_max": length, "max_lr": lr}}


SAVED = given(**settings()).record()


@pytest.mark.parametrize(
    ("config", "stays", "hints", "begins", "anew", "trains"),
    [
        (given(**settings()), [], (), [], (), settings()),
        (
            given(**settings(0.2, 8)),
            ["optimizer.g lr", "scheduler T_max", "scheduler max_lr"],
            ("lr", "scheduler"),
            [],
            (),
            settings(),
        ),
        (
            given({"lr"}, **settings(0.2, 8)),
            ["scheduler T_max"],
            ("scheduler",),
            ["optimizer.g lr", "scheduler max_lr"],
            ("lr",),
            settings(0.2),
        ),
        (
            given({"optimizer"}, **settings(0.2)),
            [],
            (),
            ["optimizer.g lr", "scheduler max_lr"],
            ("optimizer",),
            settings(0.2),
        ),
        (
            given({"scheduler"}, **settings(length=8)),
            [],
            (),
            ["scheduler T_max"],
            ("scheduler",),
            settings(length=8),
        ),
        (given({"model"}, **settings()), [], (), [], ("model",), settings()),
        (given(extra={"a": 1}, **settings()), [], (), [], (), {"extra": {"a": 1}, **settings()}),
    ],
)
def test_what_differs_stays_as_saved_unless_it_is_named(config, stays, hints, begins, anew, trains):
    trained = config.after(SAVED)
    assert (list(trained.stays), trained.hints) == (stays, hints)
    assert (list(trained.begins), trained.anew) == (begins, anew)
    assert trained.config.settings == trains
    again = config.after(trained.config.record())
    assert (again.anew, again.begins) == ((), {}), "what was taken once is resumed as it is"
    assert list(again.stays) == stays, "what is not given what trains is told each time"
    assert again.config == trained.config


def test_the_same_names_with_other_settings_are_taken_again():
    once = given({"lr"}, **settings(0.2)).after(SAVED).config
    again = given({"lr"}, **settings(0.3)).after(once.record())
    assert (again.anew, again.begins["optimizer.g lr"]) == (("lr",), [0.2, 0.3])
    without = given(**settings(0.3)).after(again.config.record())
    assert (without.anew, without.stays, without.config.anew) == ((), {}, ())


@pytest.mark.parametrize("record", [None, 3, []])
def test_of_what_an_older_version_saved_nothing_is_said(record):
    assert given(**settings()).after(record).stays == {}
    trained = given({"lr"}, **settings(0.2)).after(record)
    assert trained.anew == ("lr",)
    assert trained.config.settings == {
        "optimizer.g": {"lr": 0.2, "class": "SGD"},
        "scheduler": {"max_lr": 0.2},
    }
    assert given(**settings(0.3)).after(trained.config.record()).stays["optimizer.g lr"] == [0.2, 0.3]


@pytest.mark.parametrize("record", [{"settings": 1}, {"settings": {"scheduler": 1}}, {"notes": 3, "anew": 3}])
def test_a_record_of_another_form_says_nothing(record):
    assert given(notes={"a": 1}, **settings()).after(record).stays == {}


def test_notes_are_held_against_each_other_and_secrets_stay_ones():
    saved = given(notes={"lr": 0.1, "seed": 1, "hf_token": "a"}).record()
    trained = given(notes={"lr": 0.2, "seed": 1, "more": "x" * 99, "hf_token": "b"}).after(saved)
    assert trained.stays == {
        "notes lr": [0.1, 0.2],
        "notes hf_token": ["(masked)", "(masked)"],
        "notes more": [None, "x" * 99],
    }
    ((surprise, text, _),) = trained.sentences()
    assert surprise
    assert f"notes more none when saved, {'x' * 57}... now (run.json keeps the notes of both)" in text
    assert given().after(saved).config.notes == {"lr": 0.1, "seed": 1, "hf_token": "a"}, (
        "none given: none changed"
    )


def test_many_differences_are_one_line_of_the_first():
    one, other = ({"optimizer": {f"a{i}": n for i in range(9)}} for n in (1, 2))
    ((_, text, differ),) = given(**other).after(given(**one).record()).sentences()
    assert len(differ) == 9
    assert "optimizer a5 1 when saved, 2 now; and 3 more (the journal has all): what was saved" in text
    now = {"model": {f"L{i}": [str(i)] for i in range(9)}}
    before = {"model": {f"M{i}": [str(i)] for i in range(9)}}
    assert "; and 3 more (the journal has all): give it as it was" in structure_told(
        restructured(before, now)
    )


def test_models_are_compared_by_path():
    before = {
        "model": {"Linear": ["0", "1"], "frozen": ["0.w"]},
        "extra.ema": {"Linear": ["0"]},
        "gone": {"A": [""]},
    }
    now = {"model": {"Linear": ["0"], "Conv": ["1", "2"], "frozen": ["1.w"]}, "extra.ema": {"Conv": ["0"]}}
    assert restructured(before, now) == {
        "1": ("Linear", "Conv"),
        "0.w": ("frozen", "trained"),
        "1.w": ("trained", "frozen"),
        "extra.ema/0": ("Linear", "Conv"),
    }
    for other in (None, 3, {"model": 3}, {"model": {"Linear": 3}}):
        assert restructured(other, {"model": {"Conv": ["1"]}}) == {}


def test_names_in_anew_are_checked_against_what_there_is():
    with pytest.raises(
        SettingError, match=r"anew=\{'optimiser'\}: no component of that name; there are 'optimizer.g'"
    ):
        given({"optimiser", "lr", "optimizer", "optimizer.g"})
    with pytest.raises(SettingError, match="anew='lr': write a set of names"):
        Run("x", state={}, anew="lr")


def test_a_component_of_a_dict_begins_anew_once(tmp_path, caplog):
    def train(epochs, value, **how):
        state = {"a": value, "b": value}
        with Run(tmp_path, state=state, stop=None, **how) as run:
            began = dict(state)
            for _ in run.epochs(epochs):
                run.report(val_loss=1.0)
            run.restore_best()
        return began

    assert train(1, 1) == {"a": 1, "b": 1}
    with caplog.at_level(logging.WARNING, "stopctl"):
        assert train(2, 2, anew={"b"}) == {"a": 1, "b": 2}
        assert train(3, 3, anew={"b"}) == {"a": 1, "b": 2}
        assert train(4, 4) == {"a": 1, "b": 2}
    assert caplog.messages == []
    assert [line["text"] for line in Reader(tmp_path).journal() if line["event"] == "changed"] == [
        "begins anew, by anew=: b"
    ]
    with pytest.raises(SettingError, match="no component of that name; there are 'a', 'b'"):
        train(5, 5, anew={"lr"})


def test_a_state_that_is_no_object_is_refused_as_ever(tmp_path, monkeypatch):
    with Run(tmp_path, state={"a": 1}, stop=None, notes={"n": 1}) as run:
        for _ in run.epochs(1):
            run.report(val_loss=1.0)
    load = Reader.load
    monkeypatch.setattr(Reader, "load", lambda *args, **kwargs: (load(*args, **kwargs)[0], [1]))
    with pytest.raises(StateError, match=r"the controller's state is \[1\], not an object"):
        Run(tmp_path, state={"a": 1}, stop=None).open()

"""The algebra of rules, and rules that users write."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from stopctl import (
    After,
    Best,
    Controller,
    Every,
    KeepEvery,
    KeepPolicy,
    Last,
    Maximize,
    NonFinite,
    OnBest,
    Patience,
    Reason,
    SavePolicy,
    SettingError,
    StopPolicy,
    Target,
)
from stopctl.core.policy import AllStop, AnyStop, leaves


def test_rules_are_written_back_as_they_were_written():
    rule = Patience(5, min_delta=1e-3) | NonFinite() & After(hours=2) | Target(0.5, goal=Maximize("acc"))
    text = "Patience(5, min_delta=0.001) | (NonFinite() & After(hours=2)) | Target(0.5, goal=Maximize('acc'))"
    assert repr(rule) == text
    assert eval(text) == rule
    assert repr((Last(2) | Best(1)) & KeepEvery(epochs=5)) == "(Last(2) | Best(1)) & KeepEvery(epochs=5)"
    assert repr(Every(steps=7) & OnBest(min_delta=0.5)) == "Every(steps=7) & OnBest(min_delta=0.5)"


def test_the_same_sign_is_one_group():
    a, b, c = Patience(1), NonFinite(), Target(0.0)
    assert (a | b) | c == a | (b | c)
    assert (a & b) & c == a & (b & c)
    assert (a | b) & c != a | (b & c)
    assert list(leaves(a | b & c)) == [a, b, c]
    assert hash(a | b) == hash(Patience(1) | NonFinite())


@pytest.mark.parametrize(
    ("join", "text"),
    [
        (
            lambda: Patience(5) | OnBest(),
            "Patience(5) | OnBest(): this is a stop rule; join it with other stop rules",
        ),
        (lambda: Every(epochs=1) & Last(2), "Every(epochs=1) & Last(2): this is a save rule"),
        (lambda: Last(2) | 3, "Last(2) | 3: this is a keep rule; join it with other keep rules"),
        (lambda: Patience(5) & NonFinite, "Patience(5) & <class"),
    ],
)
def test_only_rules_of_one_question_join(join, text):
    with pytest.raises(SettingError) as caught:
        join()
    assert text in str(caught.value)


@pytest.mark.parametrize("parts", [(), (Patience(1),), (Patience(1), OnBest()), (Patience(1), 3)])
def test_there_is_no_empty_or_mixed_composition(parts):
    for kind, sign in ((AnyStop, "|"), (AllStop, "&")):
        with pytest.raises(SettingError) as caught:
            kind(parts)
        assert f"join stop rules by {sign}" in str(caught.value)


def test_rules_are_frozen():
    rule = Patience(5)
    with pytest.raises(AttributeError):
        rule.patience = 6


@dataclass(frozen=True, repr=False)
class Falling(StopPolicy):
    """Met after ``n`` reports that each rose over the one before."""

    n: int

    def start(self, now):
        return (None, 0)

    def update(self, memory, x, now):
        last, rises = memory
        return (x, rises + 1 if last is not None and x > last else 0)

    def met(self, memory, x, now):
        return memory[1] >= self.n

    def numbers(self, memory, x, now):
        return {"rises": memory[1]}


@dataclass(frozen=True, repr=False)
class WhenBelow(SavePolicy):
    limit: float

    def met(self, memory, x, now):
        return x < self.limit


@dataclass(frozen=True, repr=False)
class Odd(KeepPolicy):
    def chosen(self, checkpoints, goal):
        return {kept.name for kept in checkpoints if kept.epoch % 2}


def test_users_write_their_own_rules_the_same_way():
    controller = Controller(stop=Patience(9) | Falling(2), save=WhenBelow(0.5) & Every(epochs=1))
    seen = []
    for epoch, value in enumerate([0.9, 0.4, 0.6, 0.7], start=1):
        text = controller.state_dict()
        controller = Controller(stop=Patience(9) | Falling(2), save=WhenBelow(0.5) & Every(epochs=1))
        assert controller.load_state_dict(text) == ()
        decision = controller.report({"val_loss": value}, epoch=epoch)
        if decision.save:
            seen.append((epoch, str(decision.save)))
            controller.saved(decision.save)
    assert seen == [(2, "WhenBelow(0.5) is met; every epoch"), (4, "the run stops")]
    assert decision.stop.reason is Reason.CUSTOM
    assert str(decision.stop) == "Falling(2) is met (rises 2)"
    assert repr(Odd() | Last(1)) == "Odd() | Last(1)"


def test_a_rule_without_met_says_what_to_write():
    class Idle(StopPolicy):
        pass

    class Keeper(KeepPolicy):
        pass

    assert Idle().update("as it was", 0.0, Controller().progress) == "as it was"
    with pytest.raises(NotImplementedError, match=r"Idle does not say when it is met: write met\(\)"):
        Idle().met(None, 0.0, Controller().progress)
    with pytest.raises(NotImplementedError, match=r"Keeper does not say what it keeps: write chosen\(\)"):
        Keeper().chosen([], Maximize("acc"))


@dataclass(frozen=True, repr=False)
class Rising(StopPolicy):
    """Met when the value rose ``n`` times in a row; tells so itself."""

    n: int

    def start(self, now):
        return (None, 0)

    def update(self, memory, x, now):
        last, rises = memory
        return (x, rises + 1 if last is not None and x > last else 0)

    def met(self, memory, x, now):
        return memory[1] >= self.n

    def numbers(self, memory, x, now):
        return {**self._named(now), "rises": memory[1], "n": self.n}

    def sentence(self, numbers):
        return f"the value rose in {numbers['rises']} {numbers['unit']}s in a row"

    def standing(self, numbers):
        return f"{numbers['rises']} of {numbers['n']} rises"


def test_a_rule_of_ones_own_tells_its_own_sentence():
    controller = Controller(stop=Patience(9) | Rising(2), save=None)
    for value in (0.4, 0.5):
        assert controller.report({"val_loss": value}).stop is None
    assert controller.explain().splitlines()[2] == "Rising(2): 1 of 2 rises"
    stop = controller.report({"val_loss": 0.6}).stop
    assert (str(stop), stop.reason) == ("the value rose in 2 reports in a row", Reason.CUSTOM)
    assert stop.causes[0].numbers == {"rises": 2, "n": 2, "unit": "report"}
    assert controller.explain().splitlines()[2] == "Rising(2): 2 of 2 rises (met)"


class Plain(StopPolicy):
    """No dataclass, and no words."""

    def met(self, memory, x, now):
        return True


def test_a_rule_that_is_no_dataclass_is_told_by_its_name():
    assert str(Controller(stop=Plain(), save=None).report({"val_loss": 1.0}).stop) == "Plain() is met"

from __future__ import annotations

import contextlib
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stopctl import (
    After,
    Best,
    Every,
    KeepEvery,
    Last,
    Maximize,
    NonFinite,
    OnBest,
    Patience,
    ReduceOnPlateau,
    SettingError,
    Target,
)
from stopctl.rules import RemainingGain, Smoothed
from stopctl.runs.ruletext import import_rules, parse_keep, parse_lr, parse_save, parse_stop
from support.oracle import build
from support.strategies import all_leaves, loss_leaves, save_leaves, trees


@given(trees(all_leaves | loss_leaves))
def test_a_stop_rule_is_read_back_from_how_it_is_shown(told):
    rule = build(told)
    assert parse_stop(repr(rule)) == rule


@given(trees(save_leaves))
def test_a_save_rule_is_read_back_from_how_it_is_shown(told):
    rule = build(told)
    assert parse_save(repr(rule)) == rule


keep_leaves = st.one_of(
    st.builds(Last, st.integers(1, 9)),
    st.builds(Best, st.integers(1, 9)),
    st.builds(lambda n: KeepEvery(epochs=n), st.integers(1, 9)),
    st.builds(lambda n: KeepEvery(hours=n), st.sampled_from([0.5, 1.0])),
)
keep_rules = st.recursive(
    keep_leaves,
    lambda inner: st.tuples(st.booleans(), inner, inner).map(lambda t: t[1] | t[2] if t[0] else t[1] & t[2]),
    max_leaves=5,
)


@given(keep_rules)
def test_a_keep_rule_is_read_back_from_how_it_is_shown(rule):
    assert parse_keep(repr(rule)) == rule


def test_the_rule_for_the_learning_rate_is_read_back():
    rule = ReduceOnPlateau(0.5, patience=3, max_drops=2, goal=Maximize("accuracy"))
    assert parse_lr(repr(rule)) == rule


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        (
            " Patience(5, min_delta=1e-3, min_delta_mode='rel') ",
            Patience(5, min_delta=1e-3, min_delta_mode="rel"),
        ),
        ("Patience(5) | NonFinite() & After(epochs=20)", Patience(5) | (NonFinite() & After(epochs=20))),
        ("(Patience(5) | NonFinite()) & Target(-0.5)", (Patience(5) | NonFinite()) & Target(-0.5)),
        ('Patience(5, goal=Maximize("é"), hold_for_lr=False)', Patience(5, goal=Maximize("é"), hold_for_lr=False)),
        ("Smoothed(RemainingGain(0.05), 0.3)", Smoothed(RemainingGain(0.05), 0.3)),
        ("Patience(5, baseline=None)", Patience(5)),
        ("Patience(5)\n  | NonFinite()", Patience(5) | NonFinite()),
    ],
)  # fmt: skip
def test_rules_are_read_as_written(text, rule):
    assert parse_stop(text) == rule


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "column 1: nothing is there; write it as in Python: Patience(5) | NonFinite()"),
        ("Patience(", "column 9: '(' was never closed; write it as in Python"),
        ("Patience(5); Patience(6)", "column 12: invalid syntax"),
        ("(" * 900, "too many nested parentheses"),
        ("Patience(5)\0", "null byte"),
        ("1|" * 900 + "1", "column 1: this cannot be read"),
        ("Patience(5) | " * 200 + "Patience(5)", "at most 2000"),
        ("5", "is no stop rule"),
        ("Minimize('loss')", "is no stop rule"),
        ("Every(epochs=5)", "is no stop rule: write one, such as Patience(5) | NonFinite()"),
        ("Patience", "column 1: write its settings, too: Patience(...)"),
        ("NonFinite() | Patiense(5)", "column 15: there is no 'Patiense'; did you mean Patience? stop rules are"),
        ("  Zzzz(5)", "column 3: there is no 'Zzzz'; stop rules are After, Diverged,"),
        ("StopPolicy()", "there is no 'StopPolicy'"),
        ("Goal('loss')", "there is no 'Goal'"),
        ("Patience(5, goal=Minimize('ü')) | Ttarget(1)", "column 35: there is no 'Ttarget'; did you mean Target?"),
        ("Patience(5) | 3", "column 15: | and & join stop, save or keep rules, not 3"),
        ("Patience(5) | Minimize('loss')", "| and & join stop, save or keep rules, not Minimize('loss')"),
        ("Patience(5) | Every(epochs=5)", "join it with other stop rules"),
        ("ReduceOnPlateau(0.1) | Patience(5)", "column 1: | and & join stop, save or keep rules, not ReduceOnPlateau"),
        ("Patience(5) + Patience(6)", "a rule is made of names with settings"),
        ("Patience(2 + 3)", "column 10: a rule is made of names with settings"),
        ("Patience(*[5])", "a rule is made of names with settings"),
        ("Patience(5j)", "a rule is made of names with settings"),
        ("Patience(5, **{})", "without **"),
        ("Patience(5, patience=5)", "multiple values"),
        ("Patience(5, delta=1)", "column 13: Patience has no 'delta'; did you mean min_delta? its settings are"),
        ("Target()", "missing 1 required positional argument: 'target'; its settings are target, times, goal"),
        ("Patience()", "give exactly one length, such as Patience(10), which counts reports, or Patience(epochs"),
        (f"Patience({'9' * 400})", "column 10: no number has so many digits"),
        ("Patience(0)", "write Patience(1) to stop at the first"),
        ("Smoothed(3, 0.3)", "give one stop rule"),
        ("Patience.mro()", "a rule is made of names with settings"),
        ("__import__('os').system('true')", "a rule is made of names with settings"),
        ("__import__('os')", "there is no '__import__'"),
        ("(lambda: Patience(5))()", "a rule is made of names with settings"),
        ("[Patience(5)][0]", "a rule is made of names with settings"),
        ("Patience(5) if 1 else Patience(6)", "a rule is made of names with settings"),
    ],
)  # fmt: skip
def test_anything_else_is_refused_in_one_line(text, told):
    with pytest.raises(SettingError) as caught:
        parse_stop(text)
    assert told in str(caught.value)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 500


@given(st.text(alphabet="Patience(5)|&Last ,'\\=*x.\n[]{}:#", max_size=40))
def test_no_text_breaks_the_parser(text):
    with contextlib.suppress(SettingError):
        assert parse_stop(text).question == "stop"


def test_an_escape_that_python_warns_of_is_no_affair_of_ours():
    assert parse_stop(r"Patience(5, goal=Maximize('\d'))").goal.metric == r"\d"


@pytest.mark.parametrize(
    ("parse", "text", "told"),
    [
        (parse_save, "OnBst()", "did you mean OnBest? save rules are Every, OnBest"),
        (parse_save, "Patience(5)", "is no save rule: write one, such as Every(epochs=10) | OnBest()"),
        (parse_keep, "Lost(2)", "did you mean Last? keep rules are Best, KeepEvery, Last"),
        (parse_keep, "OnBest()", "is no keep rule: write one, such as Last(2) | Best(1)"),
        (parse_lr, "OnBest()", "is no lr rule: write one, such as ReduceOnPlateau(0.1, patience=3)"),
    ],
)
def test_each_question_lists_its_own_rules(parse, text, told):
    with pytest.raises(SettingError, match=re.escape(told)):
        parse(text)


def test_save_rules_are_read_as_written():
    assert parse_save("Every(epochs=10) | OnBest() & Every(hours=0.5)") == Every(epochs=10) | (
        OnBest() & Every(hours=0.5)
    )


OWN = """
from dataclasses import dataclass
from stopctl import StopPolicy

@dataclass(frozen=True, repr=False)
class Third(StopPolicy):
    n: int = 3

    def met(self, memory, x, now):
        return now.reports >= self.n

other = 3
"""


def test_rules_of_ones_own_are_imported_where_the_user_names_their_module(tmp_path, monkeypatch):
    (tmp_path / "rules_here.py").write_text(OWN)
    monkeypatch.chdir(tmp_path)
    text, own = import_rules("rules_here:Third(n=4) | NonFinite()")
    assert text == "Third(n=4) | NonFinite()"
    rule = parse_stop(text, own)
    assert repr(rule) == "Third(4) | NonFinite()"
    assert import_rules("Patience(5)") == ("Patience(5)", {})
    with pytest.raises(SettingError, match="there is no 'Third'"):
        parse_stop(text)
    for wrong, said in (
        ("no_such_module:Third(3)", "no_such_module cannot be imported from here"),
        ("rules_here:other(3)", "rules_here:other is no stop rule: write a dataclass there"),
        ("rules_here:Missing(3)", "rules_here:Missing is no stop rule"),
    ):
        with pytest.raises(SettingError, match=said):
            import_rules(wrong)

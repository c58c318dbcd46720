from __future__ import annotations

import inspect

import stopctl
import stopctl.rules
from stopctl.core.goal import Goal
from stopctl.core.policy import Rule
from stopctl.runs.ruletext import KINDS, KNOWN, names


def test_every_public_policy_and_goal_is_known_and_nothing_else():
    public = {name: getattr(module, name) for module in (stopctl, stopctl.rules) for name in module.__all__}
    bases = {Goal, stopctl.StopPolicy, stopctl.SavePolicy, stopctl.KeepPolicy}
    wanted = {
        name: kind
        for name, kind in public.items()
        if inspect.isclass(kind) and issubclass(kind, Rule | Goal) and kind not in bases
    }
    assert wanted == dict(KNOWN)


def test_each_rule_answers_one_question():
    answered = [name for question in KINDS for name in names(question)]
    assert sorted([*answered, "Maximize", "Minimize"]) == sorted(KNOWN)
    assert names("save") == ["Every", "OnBest"]

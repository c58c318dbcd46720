"""Every example in a docstring runs."""

from __future__ import annotations

import doctest
import importlib
import pkgutil

import pytest

import stopctl
import stopctl.core
import stopctl.ports
import stopctl.rules
import stopctl.sinks
import stopctl.testing

MODULES = sorted(
    module.name
    for package in (stopctl.core, stopctl.rules)
    for module in pkgutil.iter_modules(package.__path__, package.__name__ + ".")
)


@pytest.mark.parametrize(
    "name",
    [*MODULES, "stopctl.run.run", "stopctl.testing.verify", "stopctl.sinks.csv", "stopctl_tf.shuffled"],
)
def test_examples(name, tmp_path):
    module = importlib.import_module(name)
    names = {name: getattr(stopctl, name) for name in stopctl.__all__}
    result = doctest.testmod(module, extraglobs={**names, "directory": tmp_path / "run"})
    assert result.failed == 0


def test_there_are_examples():
    rules = [
        stopctl.Patience,
        stopctl.NonFinite,
        stopctl.Target,
        stopctl.Diverged,
        stopctl.After,
        stopctl.Every,
    ]
    rules += [stopctl.OnBest, stopctl.Last, stopctl.Best, stopctl.KeepEvery, stopctl.ReduceOnPlateau]
    rules += [getattr(stopctl.rules, name) for name in stopctl.rules.__all__ if name != "FoldChoice"]
    for public in [*rules, stopctl.EarlyStopper, stopctl.Controller, stopctl.Run, stopctl.Minimize]:
        assert ">>> " in public.__doc__, public


def test_examples_are_under_their_heading_which_the_site_renders_as_code():
    for module in [stopctl, stopctl.rules, stopctl.sinks, stopctl.testing, stopctl.ports]:
        for name in module.__all__:
            text = getattr(module, name).__doc__ or ""
            before, example, _ = text.partition(">>> ")
            assert not example or before.rstrip().endswith("Examples:"), name

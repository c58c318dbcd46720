"""Golden traces: settings of an EarlyStopper, save rules, reported values, and the decisions they must give.

The expected decisions were written by hand or by the oracle (``python -m support.traces`` from tests/ writes
them again), never by the machine. Every face replays them all: EarlyStopper, Controller, both adapters' Run, and
FitCallback inside a real model.fit.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parent.parent / "traces"
NON_FINITE = {"NaN": float("nan"), "Infinity": float("inf"), "-Infinity": float("-inf")}


def load() -> dict[str, dict[str, Any]]:
    """Name -> trace, values as floats."""
    traces = {}
    for path in sorted(FOLDER.glob("*.json")):
        trace = json.loads(path.read_text())
        trace["values"] = [NON_FINITE[v] if isinstance(v, str) else float(v) for v in trace["values"]]
        traces[path.stem] = trace
    return traces


def rules(trace: dict[str, Any]) -> tuple[Any, Any, Any]:
    """Goal, stop and save of a trace as the oracle's plain data, from the settings of its EarlyStopper."""
    stopper = dict(trace["stopper"])
    goal = (stopper.pop("mode", "min"), "val_loss")
    nonfinite = stopper.pop("nonfinite", "stop")
    target, diverged = stopper.pop("target", None), stopper.pop("diverged", None)
    stop: list[Any] = [("patience", stopper)]
    if nonfinite == "stop":
        stop.append(("nonfinite", {}))
    if target is not None:
        stop.append(("target", target, {}))
    if diverged is not None:
        stop.append(("diverged", diverged, {}))
    save: list[Any] = []
    if "every_epochs" in trace["save"]:
        save.append(("every", "epochs", trace["save"]["every_epochs"]))
    if "on_best" in trace["save"]:
        save.append(("best", trace["save"]["on_best"]))
    return goal, _any(stop), _any(save)


def _any(parts: list[Any]) -> Any:
    return None if not parts else parts[0] if len(parts) == 1 else ("any", parts)


def expected(trace: dict[str, Any]) -> list[dict[str, Any]]:
    """What the oracle expects of a trace whose saves all succeed, up to its stop."""
    from support.oracle import Oracle, Told

    oracle = Oracle(*rules(trace))
    decisions = []
    for epoch, value in enumerate(trace["values"], start=1):
        oracle.history.append(Told({"val_loss": value}, epoch, epoch, 0.0, len(trace["values"])))
        told = oracle.expect()
        if told.save:
            oracle.saves.append([epoch - 1, "ok"])
        decisions.append({"new_best": told.new_best, "stop": told.stop, "save": told.save})
        if told.stop:
            break
    return decisions


def shown(decision: Any) -> dict[str, Any]:
    """A real decision in the form of a trace."""
    return {
        "new_best": decision.new_best,
        "stop": [] if decision.stop is None else [cause.reason.value for cause in decision.stop.causes],
        "save": [] if decision.save is None else [reason.value for reason in decision.save.reasons],
    }


if __name__ == "__main__":
    for name, trace in load().items():
        path = FOLDER / f"{name}.json"
        raw = json.loads(path.read_text())
        if raw["by"] == "oracle":
            raw["expected"] = expected(trace)
            lines = ",\n    ".join(json.dumps(one) for one in raw.pop("expected"))
            head = json.dumps(raw, indent=2)[:-2]
            path.write_text(f'{head},\n  "expected": [\n    {lines}\n  ]\n}}\n')
            print(f"{name}: written", file=sys.stderr)

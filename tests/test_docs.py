"""The documents say what the code does."""

from __future__ import annotations

import re
from pathlib import Path

from stopctl.core.machine import TABLE, Phase

DOCS = Path(__file__).parent.parent / "docs"


def test_semantics_prints_the_lifecycle_table():
    text = (DOCS / "semantics.md").read_text()
    table = text.partition("## Lifecycle\n\n")[2].partition("\n\n")[0].splitlines()
    assert table[0] == "| call | " + " | ".join(phase.value for phase in Phase) + " |"
    printed = {}
    for row in table[2:]:
        calls, *cells = [cell.strip() for cell in row.strip("|").split("|")]
        for call in calls.split(", "):
            printed[call] = {phase: cell.startswith("yes") for phase, cell in zip(Phase, cells, strict=True)}
    assert printed == {call: dict(row) for call, row in TABLE.items()}


def test_links_between_documents_lead_somewhere():
    broken = []
    for path in [DOCS.parent / "README.md", *DOCS.rglob("*.md")]:
        for target in re.findall(r"\]\(([^)#]+)[^)]*\)", path.read_text()):
            if not target.startswith("http") and not (path.parent / target).exists():
                broken.append((path.name, target))
    assert broken == []


def test_the_reference_has_the_docstring_of_everything_public():
    import stopctl
    import stopctl.ports
    import stopctl.rules
    import stopctl.sinks
    import stopctl.testing
    import stopctl_jax
    import stopctl_keras
    import stopctl_tf
    import stopctl_torch

    testing, adapters = stopctl.testing, (stopctl_torch, stopctl_jax, stopctl_keras, stopctl_tf)
    modules = (stopctl, stopctl.rules, stopctl.sinks, testing, stopctl.ports, *adapters)
    public = {f"{module.__name__}.{name}" for module in modules for name in module.__all__}
    public |= {f"stopctl.store.{name}" for name in ("pin", "unpin", "unlock")}
    public |= {f"stopctl.export.{name}" for name in ("export", "read", "write")}
    public |= {"stopctl.report.page.write_report", "stopctl_torch.ignite.attach"}
    public |= {f"stopctl_torch.lightning.{name}" for name in ("fit", "control_of", "Control")}
    public |= {f"stopctl.tuners.optuna.{name}" for name in ("Pruned", "directory", "result")}
    public |= {f"stopctl.tuners.ray.{name}" for name in ("RuleStopper", "directory", "report")}
    public |= {"stopctl_torch.transformers.train"}
    boosters = ("xgboost", "lightgbm")
    public |= {f"stopctl.boosters.{host}.{name}" for host in boosters for name in ("Stopping", "train")}
    pages = [DOCS / "reference.md", *sorted((DOCS / "reference").glob("*.md"))]
    listed = [name for page in pages for name in re.findall(r"^::: (\S+)$", page.read_text(), re.MULTILINE)]
    assert sorted(listed) == sorted(public)


def test_every_page_is_on_the_site():
    site = (DOCS.parent / ".mkdocs.yml").read_text()
    listed = set(re.findall(r"([\w./-]+\.md)$", site, re.MULTILINE))
    assert listed == {path.relative_to(DOCS).as_posix() for path in DOCS.rglob("*.md")}

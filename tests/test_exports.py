"""The public face: __all__, what importing costs, and what the core may use."""

from __future__ import annotations

import ast
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import stopctl

ROOT = Path(__file__).parent.parent
PURE = {
    "__future__",
    "bisect",
    "collections",
    "copy",
    "dataclasses",
    "enum",
    "functools",
    "html",
    "itertools",
    "math",
    "re",
    "types",
    "typing",
    "stopctl",
}


def test_all_is_sorted_complete_and_there():
    assert stopctl.__all__ == sorted(stopctl.__all__)
    for name in stopctl.__all__:
        assert getattr(stopctl, name).__name__ == name
    assert set(stopctl.__all__) <= set(dir(stopctl))


def test_what_is_not_there_is_an_attribute_error():
    assert not hasattr(stopctl, "EarlyStoping")


def test_importing_stopctl_loads_the_standard_library_alone():
    code = "import sys; before = set(sys.modules); import stopctl; print(*sorted(set(sys.modules) - before))"
    loaded = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    ).stdout.split()
    tops = {name.partition(".")[0] for name in loaded}
    assert tops - {"stopctl"} <= set(sys.stdlib_module_names)
    assert "stopctl.store" not in loaded
    assert not {"logging", "asyncio", "socket", "subprocess"} & tops


def test_the_core_imports_nothing_that_could_touch_the_world():
    for path in (ROOT / "stopctl" / "core").glob("*.py"):
        tree = ast.parse(path.read_text())
        typing_only = {
            id(node)
            for block in tree.body
            if isinstance(block, ast.If) and ast.unparse(block.test) == "TYPE_CHECKING"
            for node in block.body
        }
        for node in ast.walk(tree):
            names = []
            if id(node) in typing_only:
                continue
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                names = [node.module]
            for name in names:
                assert name.partition(".")[0] in PURE, f"{path.name} imports {name}"
                assert not name.startswith("stopctl.") or name.startswith("stopctl.core"), (
                    f"{path.name}: {name}"
                )


def test_the_version_is_written_once_in_meaning():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert project["version"] == stopctl.__version__
    assert project["dependencies"] == []
    assert set(project["optional-dependencies"]) == {
        "torch",
        "tensorflow",
        "keras",
        "cli",
        "plot",
        "tensorboard",
        "mlflow",
        "wandb",
        "zstd",
        "transformers",
        "lightning",
        "ignite",
        "jax",
        "optuna",
        "ray",
        "boosters",
        "s3",
        "demo",
        "test",
        "conformance",
        "docs",
        "all",
    }


def test_every_module_has_a_test_module():
    missing = []
    for path in sorted((ROOT / "stopctl").rglob("*.py")):
        where = path.relative_to(ROOT / "stopctl")
        if path.name == "__init__.py" or where.as_posix() in COVERED_ELSEWHERE:
            continue
        if not (ROOT / "tests" / where.parent / f"test_{path.name}").exists():
            missing.append(where.as_posix())
    assert missing == []
    assert [name for name in COVERED_ELSEWHERE if not (ROOT / "stopctl" / name).exists()] == []


COVERED_ELSEWHERE = {
    "__main__.py": "tests/cli/test_main.py",
    "core/decision.py": "tests/core/test_words.py and every test of a decision",
    "core/length.py": "tests/core/test_stop.py, test_save.py and test_keep.py",
    "core/plan.py": "tests/core/test_machine.py, against the oracle",
    "core/state.py": "tests/core/test_progress.py and test_machine.py",
    "cli/__main__.py": "tests/cli/test_main.py and tests/demo/test_train.py, through the real command",
    "cli/app.py": "tests/cli/test_main.py",
    "cli/demo.py": "tests/cli/test_main.py and tests/demo/test_train.py",
    "cli/options.py": "tests/cli/test_replay.py and test_suggest.py",
    "curves/recording.py": "tests/curves/test_division.py, test_mlflow.py and test_tensorboard.py",
    "demo/tf_loop.py": "tests/demo/test_loops.py",
    "demo/torch_loop.py": "tests/demo/test_loops.py",
    "mirror/document.py": "tests/mirror/test_mirror_rot.py, every bit",
    "mirror/journal.py": "tests/mirror/test_mirror.py, and its faults and mutants",
    "mirror/look.py": "tests/mirror/test_mirror.py, and its faults and mutants",
    "mirror/push.py": "tests/mirror/test_mirror.py, and its faults and mutants",
    "mirror/remote.py": "a protocol; tests/mirror/test_objects.py and test_folder.py",
    "mirror/restore.py": "tests/mirror/test_mirror.py, and its faults and mutants",
    "ports.py": "it re-exports; tests/adapters",
    "report/words.py": "tests/report/test_data.py",
    "run/journal.py": "tests/run/test_run.py, tests/sinks/test_observer.py and tests/test_ranks.py",
    "run/session.py": "tests/run/test_run.py and test_loop.py",
    "run/settings.py": "tests/run/test_run.py, every wrong setting",
    "runs/reader.py": "tests/mirror/test_reader.py, and every command",
    "state/protocols.py": "protocols; tests/adapters",
    "store/commit.py": "tests/store/test_promise_1_all_or_nothing.py and test_promise_6_deleting.py",
    "store/fence.py": "tests/store/test_promise_5_taking_over.py",
    **{
        f"boosters/{name}.py": "tests/conformance/test_boosters.py"
        for name in ("lightgbm", "parameters", "rounds", "xgboost")
    },
    "tuners/optuna.py": "tests/conformance/test_optuna.py",
    "tuners/ray.py": "tests/conformance/test_ray.py",
    "team/leave.py": "tests/test_ranks.py",
    "team/restore.py": "tests/test_ranks.py",
    "team/save.py": "tests/test_ranks.py",
    "testing/interrupt.py": "tests/testing/test_verify.py",
}


def test_the_source_distribution_has_what_the_readmes_commands_and_the_tests_read():
    builder = pytest.importorskip("hatchling.builders.sdist").SdistBuilder(str(ROOT))
    there = {file.relative_path for file in builder.recurse_included_files()}
    needed = {
        "README.md",
        "LICENSE",
        ".mkdocs.yml",
        ".ci/constraints.txt",
        ".ci/readme_command.py",
    }
    for folder in ("stopctl", "adapters", "tests", "docs", "benchmarks"):
        files = [path for path in (ROOT / folder).rglob("*") if path.is_file()]
        needed |= {path.relative_to(ROOT).as_posix() for path in files if "__pycache__" not in path.parts}
    assert needed - there == set()

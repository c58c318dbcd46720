from __future__ import annotations

import subprocess
import sys
from importlib.metadata import entry_points, version
from pathlib import Path

import pytest
from typer.testing import CliRunner

from stopctl.cli import main
from stopctl.cli.app import app
from support.ran import ran

RUNNER = CliRunner(env={"COLUMNS": "100", "NO_COLOR": "1", "TERM": "dumb"})


def _call(*arguments: str) -> tuple[int, str, str]:
    result = RUNNER.invoke(app, list(arguments))
    return result.exit_code, " ".join(result.stdout.split()), " ".join(result.stderr.split())


def test_version_is_the_distribution_s() -> None:
    assert _call("--version") == (0, f"stopctl {version('stopctl')}", "")


def test_help_shows_the_loop_and_the_commands() -> None:
    code, text, _ = _call("--help")
    assert code == 0
    for part in ("stop=Patience(5), save=Every(epochs=10) | OnBest()) as run:", "run.restore_best()", "demo"):
        assert part in text


def test_help_of_the_demo_names_every_option_with_its_default() -> None:
    code, text, _ = _call("demo", "--help")
    assert code == 0
    for option, default in (
        ("--framework", "all that are installed"),
        ("--run-dir", "default: runs/demo"),
        ("--epochs", "default: 50"),
        ("--patience", "default: 5"),
        ("--seed", "default: 3"),
        ("--mirror", "s3://bucket/demo"),
        ("--json", "standard error"),
        ("STOPCTL_MNIST", "digits that come with scikit-learn"),
    ):
        assert option in text
        assert default in text


def test_no_arguments_show_the_help() -> None:
    code, text, errors = _call()
    assert code == 2
    assert "Usage: " in text + errors


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--epochs", "0"], "'--epochs'"),
        (["--patience", "0"], "'--patience'"),
        (["--seed", "-1"], "'--seed'"),
        (["--framework", "jax"], "'--framework'"),
        (["--monitor", "loss"], "--monitor"),
    ],
)
def test_wrong_options_are_named_before_anything_is_trained(arguments: list[str], message: str) -> None:
    code, _, errors = _call("demo", *arguments)
    assert code == 2
    assert message in errors


def test_missing_libraries_are_named_with_their_extra(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], stopctl
) -> None:
    monkeypatch.setattr("stopctl.demo.train.missing", lambda: ("pooch", "sklearn"))
    error = 'stopctl: the demo needs pooch, sklearn: pip install "stopctl[demo]"\n'
    assert stopctl("demo") == (2, "", error)


@pytest.mark.parametrize(
    ("there", "asked", "message"),
    [
        ([], None, 'no framework is installed: pip install "stopctl[torch]" or "stopctl[tensorflow]"'),
        (["torch"], "both", 'tensorflow is not installed: pip install "stopctl[tensorflow]"'),
        (["tensorflow"], "torch", 'torch is not installed: pip install "stopctl[torch]"'),
        ([], "both", 'torch, tensorflow are not installed: pip install "stopctl[torch,tensorflow]"'),
    ],
)
def test_missing_frameworks_are_named_with_their_extra(
    there: list[str],
    asked: str | None,
    message: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    stopctl,
) -> None:
    monkeypatch.setattr("stopctl.demo.train.installed", lambda: tuple(there))
    arguments = [] if asked is None else ["--framework", asked]
    assert stopctl("demo", *arguments) == (2, "", f"stopctl: {message}\n")


@pytest.mark.parametrize("module", ["typer", "rich"])
def test_the_cli_extra_is_named_if_its_libraries_are_missing(module: str) -> None:
    script = f"""
import sys
class Missing:
    def find_spec(self, name, path=None, target=None):
        if name == {module!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)
sys.meta_path.insert(0, Missing())
from stopctl.cli import main
main()
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr == f'stopctl needs {module} for its command line: pip install "stopctl[cli]"\n'


def test_other_missing_modules_are_not_hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "stopctl.cli.app", None)
    with pytest.raises(ModuleNotFoundError, match=r"stopctl\.cli\.app"):
        main()


def test_the_script_and_the_module_are_the_same_command() -> None:
    (script,) = entry_points(group="console_scripts", name="stopctl")
    assert script.load() is main
    for module in ("stopctl", "stopctl.cli"):
        command = [sys.executable, "-m", module, "--version"]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        assert done.stdout == f"stopctl {version('stopctl')}\n"


@pytest.mark.parametrize("arguments", [["ls", "~/runs"], ["demo", "--run-dir=~/runs", "--framework=torch"]])
def test_the_home_directory_is_expanded(
    arguments: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr("sys.argv", ["stopctl", *arguments])
    (tmp_path / "runs" / "torch").mkdir(parents=True)
    (tmp_path / "runs" / "torch" / "run.json").write_text("{}")
    with pytest.raises(SystemExit):
        main()
    assert "torch" in "".join(capsys.readouterr())
    assert not Path("~").exists()


def test_the_command_starts_without_numpy_a_framework_or_the_store() -> None:
    script = (
        "import sys; import stopctl.cli.app; "
        "print([m for m in ('numpy', 'torch', 'tensorflow', 'matplotlib', 'stopctl.store') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_a_folder_without_mnist_is_an_error_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], stopctl
) -> None:
    monkeypatch.setenv("STOPCTL_MNIST", str(tmp_path))
    code, _, errors = stopctl("demo", "--framework", "torch", "--run-dir", tmp_path / "runs")
    assert code == 2
    assert errors.startswith(f"stopctl: STOPCTL_MNIST is {tmp_path}, where there is neither train-images-")
    assert errors.count("\n") == 1
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    ("words", "found"),
    [
        ("stopctl di", ["diff"]),
        ("stopctl ls --so", ["--sort"]),
        ("stopctl ls --sort ", ["best", "age", "epoch"]),
        ("stopctl ls --state sto", ["stopped"]),
        ("stopctl pin RUN la", ["latest"]),
        ("stopctl unpin RUN epoch-0004", ["epoch-0004-step-000000040-w0001"]),
        ("stopctl pin none b", []),
    ],
)
def test_a_shell_completes_commands_options_and_checkpoints(words, found, tmp_path, monkeypatch, stopctl):
    ran(tmp_path / "run")
    words = words.replace("RUN", str(tmp_path / "run"))
    monkeypatch.setenv("_STOPCTL_COMPLETE", "complete_bash")
    monkeypatch.setenv("COMP_WORDS", words)
    monkeypatch.setenv("COMP_CWORD", str(len(words.split(" ")) - 1))
    assert stopctl()[1].split() == found

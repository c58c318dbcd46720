"""The program that trains: its command, its commit, and what it runs on, as run.json keeps them."""

from __future__ import annotations

import contextlib
import os
import re
import subprocess
import sys
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from stopctl.core.words import masked_arguments
from stopctl.store.journal import mapping

PROGRAM = "program"
"""run.json's key; the journal's first lines have the same without what is `PRIVATE`."""

PRIVATE = ("argv", "git")
"""What observers are not told."""

LIBRARIES = ("numpy", "torch", "tensorflow", "keras", "jax")
ARGUMENTS = 100
"""How many of the command are kept."""

LIMIT = 2.0
"""Seconds that one question to git may take."""

PATIENCE = 0.01
"""Seconds that an opening waits for git's answer, which was asked for when it began."""

NOTHING = "/dev/null"

SAFE = {
    "core.fsmonitor": "false",
    "core.hooksPath": NOTHING,
    "core.attributesFile": NOTHING,
    "status.submoduleSummary": "false",
}
"""Settings of git under which a repository's own configuration starts no program."""


class Git:
    """Asks git, in a thread, for a folder's commit and whether files of it have changed since.

    No hook, filter, monitor or transport that the repository names is run, and nothing is written.

    Attributes:
        answer: ``{"commit": "...", "dirty": True}``; dirty is None until that is known, and all of it is
            empty where there is no repository, or no git.
    """

    def __init__(self, folder: Path) -> None:
        self.answer: dict[str, Any] = {}
        self._folder = folder
        self._environment = {name: value for name, value in os.environ.items() if name[:4] != "GIT_"}
        self._environment |= {
            "GIT_OPTIONAL_LOCKS": "0", "GIT_TERMINAL_PROMPT": "0", "GIT_ALLOW_PROTOCOL": "",
            "GIT_NO_LAZY_FETCH": "1", "GIT_SSH_COMMAND": "false", "GIT_ATTR_NOSYSTEM": "1", "LC_ALL": "C",
        }  # fmt: skip
        self._thread = threading.Thread(target=self._ask, name="stopctl-git", daemon=True)
        self._thread.start()

    def wait(self, seconds: float) -> dict[str, Any]:
        """What is known by then."""
        self._thread.join(seconds)
        return dict(self.answer)

    def _ask(self) -> None:
        with contextlib.suppress(OSError, ValueError, subprocess.SubprocessError):
            commit = commit_of(self._folder)
            if commit is None:  # as of a repository that keeps its branches in tables
                commit = self._git("rev-parse", "--verify", "HEAD").strip().decode("ascii")
            self.answer = {"commit": commit, "dirty": None}
            config = "config", "--null", "--name-only", "--get-regexp", r"^filter\."
            names = self._git(*config, none=True).split(b"\0")
            settings = dict(SAFE)
            for name in {os.fsdecode(name).rpartition(".")[0] for name in names if name}:
                settings |= {f"{name}.clean": "", f"{name}.process": "", f"{name}.required": "false"}
            self._environment["GIT_CONFIG_COUNT"] = str(len(settings))
            for i, (name, value) in enumerate(settings.items()):
                self._environment |= {f"GIT_CONFIG_KEY_{i}": name, f"GIT_CONFIG_VALUE_{i}": value}
            changed = self._git(
                "status", "--porcelain", "--untracked-files=no", "--ignore-submodules=all", "--no-renames"
            )
            self.answer = {"commit": commit, "dirty": bool(changed.strip())}

    def _git(self, *arguments: str, none: bool = False) -> bytes:
        """What git says; ``none``: also where it finds nothing (exit code 1)."""
        options = [part for name, value in SAFE.items() for part in ("-c", f"{name}={value}")]
        command = ["git", "--no-pager", *options, "-C", os.fspath(self._folder), *arguments]
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
            env=self._environment, timeout=LIMIT, check=False,
        )  # fmt: skip
        if done.returncode and not (none and done.returncode == 1):
            raise ValueError(f"git {arguments[0]} ended with {done.returncode}")
        return done.stdout


def commit_of(folder: Path) -> str | None:
    """The commit that the files of a repository tell of, which takes no process; None where they do not."""
    top = top_of(folder)
    if top is None:
        return None
    git = top / ".git"
    if git.is_file():  # of a work tree
        git = top / git.read_text().removeprefix("gitdir:").strip()
    common = git / (git / "commondir").read_text().strip() if (git / "commondir").exists() else git
    head = (git / "HEAD").read_text().strip()
    if not head.startswith("ref: "):
        return head if COMMIT.fullmatch(head) else None
    name = head.removeprefix("ref: ")
    found = [base / name for base in (git, common) if (base / name).is_file()]
    if found:
        told = found[0].read_text().strip()
        return told if COMMIT.fullmatch(told) else None
    packed = common / "packed-refs"
    lines = packed.read_text().splitlines() if packed.exists() else []
    return next((line.split()[0] for line in lines if line.endswith(f" {name}")), None)


COMMIT = re.compile(r"[0-9a-f]{40,64}")

_asked: dict[Path, Git] = {}
"""Once a process and folder: what is trained was imported then."""


def ask() -> Git | None:
    """Have git asked, if this program lies, or runs, in a repository."""
    folder = repository()
    if folder is None:
        return None
    if folder not in _asked:
        _asked[folder] = Git(folder)
    return _asked[folder]


def repository() -> Path | None:
    """The folder of the script, or else the working directory, if it is in a repository."""
    with contextlib.suppress(OSError):
        script = getattr(sys.modules.get("__main__"), "__file__", None)
        for folder in [*([Path(os.path.abspath(script)).parent] if script else []), Path.cwd()]:
            if top_of(folder) is not None:
                return folder
    return None


def top_of(folder: Path) -> Path | None:
    """The repository's own folder, that one or one above it."""
    return next((above for above in (folder, *folder.parents) if (above / ".git").exists()), None)


def facts(git: Git | None) -> tuple[dict[str, Any], dict[str, Any]]:
    """What run.json says of this process, and what of that the journal and its observers get."""
    script = getattr(sys.modules.get("__main__"), "__file__", None) or os.environ.get("JPY_SESSION_NAME")
    all_facts = {
        "script": os.path.basename(script) if script else None,
        "argv": masked_arguments(sys.argv[:ARGUMENTS]),
        "git": git and git.wait(PATIENCE),
        "host": os.uname().nodename,
        "python": sys.version.split()[0],
        "libraries": libraries(),
        "gpu": gpu(),
    }
    known = {name: fact for name, fact in all_facts.items() if fact}
    return known, {name: fact for name, fact in known.items() if name not in PRIVATE}


def libraries() -> dict[str, str]:
    """Versions of those that are imported."""
    found = {name: getattr(sys.modules.get(name), "__version__", None) for name in LIBRARIES}
    return {name: str(version) for name, version in found.items() if version is not None}


DRIVER = Path("/proc/driver/nvidia/gpus")


def gpu(driver: Path = DRIVER) -> str | None:
    """The machine's graphics processors as the driver names them; nothing is initialized for that."""
    names: dict[str, int] = {}
    with contextlib.suppress(OSError, UnicodeDecodeError):
        for one in sorted(driver.iterdir()):
            for line in (one / "information").read_text().splitlines():
                key, _, value = line.partition(":")
                if key.strip() == "Model":
                    names[value.strip()] = names.get(value.strip(), 0) + 1
    return ", ".join(name if n == 1 else f"{n} x {name}" for name, n in names.items()) or None


def described(meta: Mapping[str, Any]) -> list[str]:
    """The program that run.json tells of, in lines for people; none of an older run.

    >>> git = {"commit": "a" * 40, "dirty": True}
    >>> described({"program": {"argv": ["train.py", "--lr", "0.1"], "git": git}})
    ['train.py --lr 0.1', 'git aaaaaaaaaaaa, with changes that are not committed']
    """
    program = mapping(meta.get(PROGRAM))
    argv, git = program.get("argv"), mapping(program.get("git"))
    lines = [" ".join(map(str, argv))] if isinstance(argv, list) else []
    if git.get("commit"):
        dirty = git.get("dirty")
        unsure = "" if dirty is False else ", which was not compared with the files in time"
        changed = ", with changes that are not committed" if dirty is True else unsure
        lines.append(f"git {str(git['commit'])[:12]}{changed}")
    on = [str(program["host"])] if program.get("host") else []
    on += [f"python {program['python']}"] if program.get("python") else []
    on += [f"{name} {version}" for name, version in mapping(program.get("libraries")).items()]
    on += [str(program["gpu"])] if program.get("gpu") else []
    return [*lines, *([", ".join(on)] if on else [])]

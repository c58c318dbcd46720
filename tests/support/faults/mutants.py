"""The store with one fsync, rename or check taken out, each of which must be noticed."""

from __future__ import annotations

import ast
import contextlib
import importlib
import inspect
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FunctionType
from typing import Any, NamedTuple

from support.recorder import Recorder

DISK, ERRORS, ROT, REFUSALS, OVERTAKEN = "begins", "errors", "rot", "refusals", "overtaken"
CHUNKED_ERRORS, CHUNKED_ROT, CHUNKED_CUTS = "errors, chunked", "rot, chunked", "power cuts, chunked"


class Mutant(NamedTuple):
    """`function` (``module:qualified.name``) with `new` for `old`; `by`: what should notice it.

    That is a story whose power cuts do, or one of ERRORS, ROT, REFUSALS, OVERTAKEN, those of them that are chunked
    included; DISK is the first story.
    `old` is compared with the function's syntax, so quotes, breaks of lines and comments do not matter.
    """

    function: str
    old: str
    new: str
    by: str


class Dropped(NamedTuple):
    """An operation that is left out where its path's name fits."""

    operation: str
    fits: Callable[[Path], bool]
    by: str


def named(name: str) -> Callable[[Path], bool]:
    return lambda path: path.name == name


MUTANTS: dict[str, Mutant | Dropped] = {
    "no fsync of the arrays": Dropped("sync", named("state.safetensors"), DISK),
    "no fsync of the state": Dropped("sync", named("state.json"), DISK),
    "no fsync of the manifest": Dropped("sync", named("manifest.json"), DISK),
    "no fsync of run.json": Dropped("sync", named(".tmp-run.json"), DISK),
    "no fsync of the parts' arrays": Dropped("sync", named("part-00001.safetensors"), "saves_together"),
    "no fsync of the parts": Dropped("sync", named("part-00001.json"), "saves_together"),
    "no fsync of what tells of the parts": Dropped("sync", named("parts.json"), "saves_together"),
    "the parts of a killed save stay": Mutant("commit:is_ours", "or PART.fullmatch(name) is not None", "", "sweeps"),
    "pieces may lack": Mutant("parts:gathered", "cover == whole", "True", REFUSALS),
    "pieces may overlap": Mutant("parts:gathered", "cover == whole", "cover.volume == whole.volume", REFUSALS),
    "a part's file may lack": Mutant("parts:gathered", "check_sizes(files, directory, told)", "pass", REFUSALS),
    "a rank may lack": Mutant("parts:gathered", "[fact.rank for fact in by_rank] != list(range(ranks))", "False", REFUSALS),
    "no fsync of the temporary directory": Dropped(
        "sync_directory", lambda path: path.name.startswith(".tmp-"), DISK
    ),
    "no fsync of checkpoints/ after the rename": Mutant(
        "draft:Draft.publish", "self._files.sync_directory(self._writing.folder)", "pass", "saves"
    ),
    "no fsync of the run's directory": Dropped("sync_directory", named("run"), DISK),
    "no fsync of the directory above": Dropped("sync_directory", named("told"), DISK),
    "no fsync before the trash is emptied": Mutant("commit:sweep", "files.sync_directory(folder)", "pass", "deletes"),
    "no fsync after setting aside": Mutant("commit:set_aside", "files.sync_directory(folder)", "pass", "sets_aside"),
    "no fsync of a pin": Mutant("pins:write_pin", "files.sync_directory(folder)", "pass", "pins"),
    "no fsync of the pins' directory": Mutant("pins:write_pin", "files.sync_directory(path)", "pass", "pins"),
    "no fsync at all": Dropped("sync", lambda path: True, DISK),
    "a checkpoint without the rename": Mutant(
        "draft:Draft.__init__",
        "writing.folder / f'{TEMPORARY}{info.name}-{secrets.token_hex(4)}'",
        "writing.folder / info.name",
        DISK,
    ),
    "run.json without the rename": Mutant(
        "rundir:write_meta",
        "write_file(files, path / NEW_RUN, [strict.dumps(meta) + b'\\n'])",
        "files.exists(path / RUN) and files.unlink(path / RUN)\n"
        "write_file(files, path / RUN, [strict.dumps(meta) + b'\\n'])\nreturn",
        DISK,
    ),
    "a delete without the rename": Mutant(
        "commit:discard", "files.rename(folder / name, path)", "_remove(files, folder / name)", "deletes"
    ),
    "the rename before the manifest": Mutant(
        "draft:Draft.publish",
        "self._file(MANIFEST, [data])",
        "self._files.rename(self.directory, info.path)\nself.directory = info.path\nself._file(MANIFEST, [data])",
        DISK,
    ),
    "no sweep": Mutant("rundir:start", "sweep(files, folder, TEMPORARY, TRASH, UPLOAD)", "{}", "sweeps"),
    "a failed save is not withdrawn": Mutant("draft:Draft.commit", "self.withdraw()", "pass", ERRORS),
    "a short write is taken for a whole one": Mutant("hashed:_write", "while view:", "if view:", ERRORS),
    "a torn line is gone on with": Mutant("journal:Journal.append", "self._torn:", "False:", ERRORS),
    "a failed fsync is passed over": Mutant(
        "hashed:write_file", "files.sync(handle)", "try:\n    files.sync(handle)\nexcept OSError:\n    pass", ERRORS
    ),
    "a failed fsync is tried again": Mutant(
        "hashed:write_file",
        "files.sync(handle)",
        "try:\n    files.sync(handle)\nexcept OSError:\n    files.sync(handle)",
        ERRORS,
    ),
    "an error of writing back early is passed over": Mutant(
        "hashed:write_file",
        "files.write_back(handle, begun, size - begun)",
        "try:\n    files.write_back(handle, begun, size - begun)\nexcept OSError:\n    pass",
        CHUNKED_ERRORS,
    ),
    "writing back early for an fsync": Mutant(
        "hashed:write_file", "files.sync(handle)", "begun or files.sync(handle)", CHUNKED_CUTS
    ),
    "no fsync of the chunks' hashes": Dropped("sync", named("chunks.bin"), CHUNKED_CUTS),
    "no SHA-256 of the files": Mutant("hashed:read_file", "hashlib.sha256(buffer).hexdigest() != fact.sha256", "False", ROT),
    "no SHA-256 of the chunks": Mutant("hashed:_read_chunked", "found != fact", "False", CHUNKED_ROT),
    "not every chunk is read": Mutant("hashed:_Reading.__init__", "-(-size // CHUNK)", "(size // CHUNK)", CHUNKED_ROT),
    "no SHA-256 of the manifest": Mutant("manifest:_is_signed", "sha256(before + after).hexdigest() == said", "sha256", ROT),
    "any spelling of the manifest": Mutant(
        "manifest:_is_signed", "or strict.dumps(body, sort_keys=True) != data", "", REFUSALS,
    ),
    "a manifest under any name": Mutant("manifest:parse_as", "info.name != name", "False", ROT),
    "sizes are not listed": Mutant("assembly:check_sizes", "size != fact.size", "False", ROT),
    "links are followed": Mutant("files:_open_regular", "| os.O_NOFOLLOW", "", ROT),
    "the newest is deleted": Mutant("store:Store.delete", "name in newest", "False", REFUSALS),
    "a pinned one is deleted": Mutant("store:Store.delete", "info.pinned else None", "False else None", REFUSALS),
    "a guarded one is deleted": Mutant("store:Store.delete", "name in guarded", "False", REFUSALS),
    "a name is taken twice": Mutant("draft:Draft.begin", "self._files.exists(self.info.path)", "False", REFUSALS),
    "what cannot be asked for is not there": Mutant(
        "files:Files.exists", "(FileNotFoundError, NotADirectoryError)", "OSError", REFUSALS
    ),
    "a pin set meanwhile is passed over": Mutant(
        "fence:Fence.stays", "is_pinned_by_hand(self._files, self._path, name)", "False", REFUSALS
    ),
    "a listing does not look again": Mutant("reader:Reader.list", "len(deleted) == before", "True", OVERTAKEN),
    "no look at the room": Mutant("draft:Draft._put", "check_room(self._files, self._writing.folder, self.info.name, shares.contents)", "pass", REFUSALS),
    "no look at the writer's number": Mutant("rundir:check_writer", "newest != writer", "False", REFUSALS),
    "no look at the lock": Mutant("files:Files.lock", "fcntl.flock(handle.fd, fcntl.LOCK_EX | fcntl.LOCK_NB)", "pass", REFUSALS),
    "what was read back is not compared": Mutant("hashed:check_file", "found != fact", "False", REFUSALS),
    "any directory is a run": Mutant("rundir:refuse_no_run", "if not all(", "if False and not all(", REFUSALS),
    "unfinished saves of others stay": Mutant("rundir:start", "withdraw_unfinished(files, folder)", "pass", OVERTAKEN),
    "an overtaken writer goes on": Mutant("fence:Fence.check", "if lost:", "if False:", OVERTAKEN),
}  # fmt: skip


class NoLongerApplies(Exception):
    """The store has changed so that a mutant is none any more: it is to be written anew."""


@contextlib.contextmanager
def applied(name: str) -> Iterator[None]:
    """The store is this mutant within the block, and has met what was changed when that ends."""
    mutant = MUTANTS[name]
    met: list[object] = []
    with _dropping(mutant, met) if isinstance(mutant, Dropped) else _changed(mutant, met):
        try:
            yield
        finally:
            if not met:
                raise NoLongerApplies(f"{name!r}: nothing has come to where it differs from the store")


@contextlib.contextmanager
def _dropping(mutant: Dropped, met: list[object]) -> Iterator[None]:
    real = getattr(Recorder, mutant.operation)

    def operation(self: Recorder, at: Any) -> Any:
        if not mutant.fits(getattr(at, "path", at)):
            return real(self, at)
        return met.append(at)

    setattr(Recorder, mutant.operation, operation)
    try:
        yield
    finally:
        setattr(Recorder, mutant.operation, real)


@contextlib.contextmanager
def _changed(mutant: Mutant, met: list[object]) -> Iterator[None]:
    function = _function(mutant.function)
    source = ast.unparse(ast.parse(textwrap.dedent(inspect.getsource(function))))
    lines = [_replaced(line, mutant.old, mutant.new) for line in source.splitlines()]
    if lines == source.splitlines():
        raise NoLongerApplies(f"{mutant.function} has no {mutant.old!r} any more, but:\n{source}")
    met.append(function)
    scope: dict[str, Any] = {}
    text = "\n".join(["from __future__ import annotations", *lines])
    exec(compile(text, f"<{mutant.function}, mutated>", "exec"), function.__globals__, scope)
    changed = scope[function.__name__]
    before = function.__code__
    function.__code__ = getattr(changed, "__func__", changed).__code__
    try:
        yield
    finally:
        function.__code__ = before


def _replaced(line: str, old: str, new: str) -> str:
    """`new` for `old`, its further lines indented as the first."""
    indent = line[: len(line) - len(line.lstrip())]
    return line.replace(old, new.replace("\n", f"\n{indent}"))


def _function(name: str) -> FunctionType:
    module, _, path = name.partition(":")
    found: Any = importlib.import_module(f"stopctl.store.{module}")
    for part in path.split("."):
        found = inspect.getattr_static(found, part)
    found = getattr(found, "__func__", found)
    assert isinstance(found, FunctionType)
    return found

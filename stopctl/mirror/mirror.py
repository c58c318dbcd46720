"""The protocol: one writer after the other, each fenced by the claim of the next."""

from __future__ import annotations

import contextlib
import os
import secrets
from collections.abc import Callable, Collection, Iterable, Sequence
from pathlib import Path
from typing import Any

from stopctl.core.errors import DamagedError, LockedError, OrderError, SaveError
from stopctl.mirror import document, keys
from stopctl.mirror import look as looks
from stopctl.mirror.journal import Segments
from stopctl.mirror.keys import Commit
from stopctl.mirror.look import MARK, Look
from stopctl.mirror.push import check, put, read_local, telling
from stopctl.mirror.remote import Remote
from stopctl.mirror.restore import Committed, Restored, fetch, read_commit, restore
from stopctl.store.files import FILES, ROTTEN, Files, as_damage, damage_of
from stopctl.store.lock import now
from stopctl.store.manifest import FROZEN, NAME, CheckpointInfo
from stopctl.store.pins import read_pins
from stopctl.store.rundir import CHECKPOINTS, JOURNAL, read_meta, write_meta


class Mirror:
    """A run's mirror; used by one thread at a time.

    To open a run: `look`; if the directory has a run.json that is not `RESTORING`, refuse unless
    `look.is_followed_by(meta)`; `claim`; `restore`, always, and after the claim: what the one before has
    committed until then is seen, and nothing later exists; ``store.begin`` with the claim's number and
    ``| mirror.mark``. Then `push`, `prune`, `describe`, `journal` at will; at last `end`.

    Reading (`look`, `info`, `fetch`, `restore`) needs no claim.

    Args:
        remote: the operations.
        files: the local file operations; a test gives its own.
    """

    number: int = 0
    """Of the claim; 0 without one."""
    fenced: str | None = None
    """Who has claimed the mirror since, in a sentence; it stays so: every later write is a SaveError."""

    def __init__(self, remote: Remote, *, files: Files = FILES) -> None:
        self._remote, self._files = remote, files
        self._nonce = ""
        self._tried: tuple[int, bytes] | None = None
        self._seen: frozenset[str] = frozenset()
        self._attempts = 0
        self._open: set[str] = set()
        self._read: dict[Commit, Committed] = {}
        self._frozen: dict[str, str] = {}
        self._said: bytes | None = None
        self._sequence = 0

    @property
    def mark(self) -> dict[str, Any]:
        """What run.json must hold from ``store.begin`` on: that this directory follows the claim."""
        return {MARK: [self._nonce]}

    def look(self) -> Look:
        """What is there now.

        Raises:
            DamagedError: a claim, or what tells of the run, is not what was written.
            OSError: the store does not answer.
        """
        return looks.take(self._remote)

    def claim(self, directory: Path, look: Look, writer: int) -> int:
        """Become the writer of the mirror: from now on no older one commits anything that counts.

        Where the directory has a run.json, the claim is noted there before it is made, so that a death just
        after it does not make a stranger of the directory.

        Args:
            directory: the run's, locked by the caller.
            look: what the caller has judged the directory by.
            writer: the lowest number that the local store allows; 1 for a new run.

        Returns:
            The number of this writer, for ``store.begin``: higher than every claim's, and at least `writer`.

        Raises:
            LockedError: another one has claimed it since `look`, or at this moment.
            SaveError: the store does not answer; a second call finds out what became of the first.
        """
        if self.number:
            raise OrderError(f"{self._remote.url} is claimed by this Mirror already: make another one")
        with telling("claiming the mirror", self._remote):
            number = self._take(directory, look, writer)
            there = looks.writers(self._remote)
            if there.top > number:
                raise self._taken(there.top)
            counted = looks.seen_by(self._remote, there.seen)
            self._seen = counted.entries
            if number not in there.seen:  # else it was told of in a call whose answer was lost
                exist, _ = looks.visible(self._remote, there.seen, counted.entries)
                self._seen = frozenset(commit.entry for commit in exist)
                once = counted.once or bool(exist)
                seen = {"nonce": self._nonce, "seen": sorted(self._seen), "once": once}
                document.create(self._remote, keys.writer(number, "seen"), document.encode(seen))
        self.number, self._directory = number, directory
        self._segments = Segments(self._remote, self._files, directory / JOURNAL, number)
        return number

    def tag(self) -> str:
        """A new tag, for a checkpoint of which other ranks upload their parts (`upload`); for one `push`."""
        number = self._claimed()
        self._attempts += 1
        tag = keys.new_tag(number, self._attempts)
        self._open.add(tag)
        return tag

    def push(
        self,
        checkpoint: Path,
        name: str | None = None,
        *,
        tag: str | None = None,
        elsewhere: Collection[str] = (),
    ) -> Commit:
        """Upload a checkpoint and commit it; when this returns, it is mirrored, and until then it is not.

        What is there already is not uploaded again. run.json and the pins go first, if they have changed.

        Args:
            checkpoint: the local directory, or a hard-linked copy of it.
            name: the checkpoint's, where the directory has another one.
            tag: of `tag`, where other ranks have uploaded files; they have all told that it was done.
            elsewhere: the names of those files.

        Raises:
            SaveError: it is not mirrored: the store does not answer (the cause is an OSError), or another
                writer has claimed the mirror (`fenced`). A later call begins anew.
            DamagedError: the local checkpoint is not what its manifest says.
        """
        name = name or checkpoint.name
        commit = Commit(name, tag or self.tag())
        with telling(f"mirroring {name}", self._remote):
            try:
                self.describe()
                with damage_of(name):
                    body = self._upload(checkpoint, commit, elsewhere)
                self._check()
            except BaseException:
                self._open.discard(commit.tag)
                raise
            document.create(self._remote, commit.key, document.encode(body))
            self._check()
        self._open.discard(commit.tag)  # not where the commit may yet appear, however late
        return commit

    def describe(self) -> None:
        """Mirror the local run.json and pins, if they are not there as they are; SaveError as of `push`."""
        number = self._claimed()
        with telling("mirroring run.json and the pins", self._remote):
            meta = read_meta(self._files, self._directory)
            if meta is None:
                raise OrderError(f"{self._directory} has no run.json: begin the run first")
            pins = read_pins(self._files, self._directory)
            names = ([name for name in sorted(each) if NAME.fullmatch(name)] for each in pins)
            said = document.encode(dict(zip(("meta", "pinned", "unpinned"), (meta, *names), strict=True)))
            if said == self._said:
                return
            run = keys.Run(number, self._sequence)
            self._sequence += 1  # also where its answer is lost: no key is used for two contents
            document.create(self._remote, run.key, said)
            self._said = said
            there = keys.runs(self._remote.list("runs/"))
            self._remote.delete(each.key for each in there if each < run)

    def journal(self) -> None:
        """Mirror what the local journal has got since the last call; SaveError as of `push`."""
        self._claimed()
        with telling("mirroring the journal", self._remote):
            self._segments.mirror()

    def prune(
        self,
        kept: Collection[str],
        want: Callable[[Sequence[CheckpointInfo]], Iterable[str]] = lambda infos: (),
    ) -> frozenset[str]:
        """Delete what is not among `kept` (the local checkpoints' names), and what nobody has committed.

        The newest in the mirror, and those that are pinned here or there, stay.

        Args:
            kept: the names.
            want: given the checkpoints that the mirror has, oldest first, the names of those to keep besides:
                the best of them, as long as the better one that has taken its place here is not there.

        Returns:
            Those of `kept` that are not in the mirror, to be pushed.

        Raises:
            SaveError: as of `push`; what has gone is gone as a whole.
        """
        number = self._claimed()
        with telling("pruning the mirror", self._remote):
            self._check()
            exist, fenced = looks.visible(self._remote, [number], self._seen)
            once = looks.each_once(exist)
            doomed = self._doomed(once, kept, want)
            gone = {*fenced, *exist}.difference(once) | doomed
            self._remote.delete([commit.key for commit in gone if commit.number <= number])
            alive = {commit for commit in exist if commit not in gone}
            self._sweep(alive)
        return frozenset(kept).difference(commit.name for commit in alive)

    def end(self) -> None:
        """Say that this writer has ended in order; nothing without a claim. SaveError as of `push`."""
        if self.number and self.fenced is None:
            with telling("closing the mirror", self._remote):
                body = document.encode({"nonce": self._nonce})
                document.create(self._remote, keys.writer(self.number, "closed"), body)

    def info(self, commit: Commit) -> CheckpointInfo:
        """A commit's manifest, verified; its files are `fetch`'s to verify. ``path`` is where it would lie.

        Raises:
            DamagedError: it is not what was written, or was deleted meanwhile.
            OSError: the store does not answer.
        """
        return read_commit(self._remote, commit, Path(CHECKPOINTS)).info

    def fetch(self, commit: Commit, folder: Path) -> CheckpointInfo:
        """Bring a checkpoint into `folder` (a run's ``checkpoints``): verified, on the disk, then renamed.

        Raises:
            DamagedError: it is not what was committed; the text names the file. Nothing is left.
            FileExistsError: `folder` has one of that name.
            OSError: the store does not answer, or the disk fails.
        """
        return fetch(self._remote, self._files, commit, folder)

    def restore(
        self,
        directory: Path,
        want: Callable[[Sequence[CheckpointInfo]], Iterable[str]] = lambda infos: (),
    ) -> Restored:
        """Bring a run back into a directory, locked by the caller.

        Where it has no run.json, or a `RESTORING` one: the newest checkpoint that is good, the pinned ones
        and those that `want` names; the journal, the pins and run.json, which is `RESTORING` until all the
        rest is on the disk. Nothing where nobody has committed anything yet.

        Where it has a run: the newest checkpoint that is good, if all local ones are older (the disk has lost
        some, or the directory is a copy of what was one).

        Args:
            directory: the run's.
            want: given the checkpoints whose manifests are good, oldest first, the names of others to bring.

        Raises:
            DamagedError: there are commits, and none is good, or what tells of the run is not.
            SaveError: another writer has claimed the mirror meanwhile (`fenced`).
            OSError: the store does not answer, or the disk fails; a second call begins anew.
        """
        restored = restore(self._remote, self._files, directory, want)
        if self.number:
            with telling("restoring", self._remote):
                self._check()
        return restored

    def _take(self, directory: Path, look: Look, writer: int) -> int:
        """Make the claim, or find out that an earlier call has made it; its number."""
        top = looks.writers(self._remote).top
        before = 0 if look.newest is None else look.newest.number
        if self._tried is not None and self._tried[0] == top and self._is(keys.writer(top), self._tried[1]):
            return top
        if top != before:
            raise self._taken(top)
        number = max(top + 1, writer)
        if self._tried is None or self._tried[0] != number:
            self._nonce = secrets.token_hex(8)
            who = {"host": os.uname().nodename, "pid": os.getpid(), "started": now()}
            self._tried = number, document.encode({"nonce": self._nonce, **who})
        self._note(directory, look)
        try:
            document.create(self._remote, keys.writer(number), self._tried[1])
        except FileExistsError:
            raise self._taken(number) from None
        return number

    def _is(self, key: str, data: bytes) -> bool:
        """Whether an object is just this one."""
        try:
            return self._remote.read(key, len(data)) == data
        except DamagedError:  # longer
            return False

    def _note(self, directory: Path, look: Look) -> None:
        """Have run.json say, before it is made, that the directory follows the claim; if it is up to date."""
        meta = read_meta(self._files, directory)
        if meta is not None and look.is_followed_by(meta):
            nonces = [*(meta.get(MARK) or ()), self._nonce] if look.newest else [self._nonce]
            write_meta(self._files, directory, {**meta, MARK: nonces})
            self._files.sync_directory(directory)

    def _taken(self, number: int) -> LockedError:
        """What to say where another one has claimed the mirror."""
        try:
            said = document.read(self._remote, keys.writer(number), looks.CLAIM)
        except (OSError, DamagedError):
            said = {}
        host, pid, started = (said.get(name) for name in ("host", "pid", "started"))
        who = f"process {pid} on {host} since {started}" if said else "another process"
        return LockedError(
            f"{self._remote.url} has just been claimed by {who} (writer {number}): start again to take it "
            "over, if that one must not go on",
            host=host,
            pid=pid,
            started=started,
        )

    def _claimed(self) -> int:
        """The number of the claim; OrderError without one, SaveError once it is fenced."""
        if self.fenced is not None:
            raise SaveError(self.fenced)
        if not self.number:
            raise OrderError(f"{self._remote.url}: call claim() first")
        return self.number

    def _check(self) -> None:
        """SaveError if another one has claimed the mirror since."""
        top = looks.writers(self._remote).top
        if top != self.number:
            who = self._taken(top).host if top else None
            said = f"has been claimed by writer {top}{who and f' on {who}'}" if top else "has lost its claims"
            self.fenced = f"{self._remote.url} {said}: this one, {self.number}, mirrors no more"
            raise SaveError(self.fenced)

    def _upload(self, checkpoint: Path, commit: Commit, elsewhere: Collection[str]) -> dict[str, str | None]:
        """Upload a checkpoint's files; returns what its commit says."""
        remote, files = self._remote, self._files
        name, tag = commit
        local = read_local(files, checkpoint, name)
        for file, fact in local.facts.items():
            if file in elsewhere or (file == FROZEN and fact.sha256 in self._frozen):
                continue
            with as_damage(file, ROTTEN):
                check(files, checkpoint / file, fact)
            shared = keys.frozen(fact.sha256, tag) if file == FROZEN else None
            put(remote, files, shared or keys.data(name, tag, file), checkpoint / file)
            if shared:
                self._frozen[fact.sha256] = tag
        if elsewhere:
            there = set(remote.list(f"data/{name}/{tag}/"))
            missing = sorted(file for file in elsewhere if keys.data(name, tag, file) not in there)
            if missing:
                raise SaveError(f"mirroring {name} at {remote.url}: another rank's {missing[0]} is not there")
        frozen = None if local.frozen is None else self._frozen[local.frozen.sha256]
        return {"manifest": local.manifest.decode("ascii"), "frozen": frozen}

    def _committed(self, commit: Commit) -> Committed:
        """What a commit says, read once: it never changes."""
        if commit not in self._read:
            self._read[commit] = read_commit(self._remote, commit, Path(CHECKPOINTS))
        return self._read[commit]

    def _doomed(
        self,
        once: Sequence[Commit],
        kept: Collection[str],
        want: Callable[[Sequence[CheckpointInfo]], Iterable[str]],
    ) -> set[Commit]:
        """Those that go: none that is the newest, or pinned, or so damaged that nobody knows if it is."""
        if all(commit.name in kept for commit in once[1:]):
            return set()
        pins, infos = read_pins(self._files, self._directory), {}
        for commit in reversed(once):
            with contextlib.suppress(DamagedError):
                infos[commit] = pins.as_pinned(self._committed(commit).info)
        stay = {*kept, *want(list(infos.values())), *(info.name for info in infos.values() if info.pinned)}
        return {commit for commit in once[1:] if commit in infos and commit.name not in stay}

    def _sweep(self, alive: Collection[Commit]) -> None:
        """Delete the files of no commit, uploaded by this writer or an older one."""
        self._read = {commit: read for commit, read in self._read.items() if commit in alive}
        try:
            shared = {self._committed(commit).shared for commit in alive}
        except DamagedError:
            return  # nobody knows what that one shares
        tags = {commit.tag for commit in alive} | self._open
        gone = [
            each
            for prefix in ("data/", "frozen/")
            for each in keys.stored(self._remote.list(prefix))
            if each.number <= self.number and each.tag not in tags and each.key not in shared
        ]
        for each in gone:
            if self._frozen.get(each.at) == each.tag:
                del self._frozen[each.at]  # before it goes, whatever is heard of that
        self._remote.delete(each.key for each in gone)

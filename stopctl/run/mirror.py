"""A mirror at the opening of a run: who has written it last, and what this directory is to get from it."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stopctl.core.errors import DamagedError, LockedError, OrderError, SaveError
from stopctl.core.keep import doomed
from stopctl.run.settings import Settings
from stopctl.run.uploader import Uploader
from stopctl.store import CheckpointInfo, Store
from stopctl.store.rundir import CHECKPOINTS, RESTORING

if TYPE_CHECKING:
    from stopctl.mirror import Claim, Look, Mirror, Remote

log = logging.getLogger("stopctl")


class Followed:
    """The mirror that an opening run follows: looked at, then claimed, and brought back if that is due.

    Args:
        settings: of the run; they name the mirror.

    Attributes:
        there: the names of the checkpoints that it has.
        told: what opening has told of it, each with its level, for the journal.

    Raises:
        SaveError: it does not answer.
        DamagedError: what it tells of the run is not what was written.
    """

    def __init__(self, settings: Settings) -> None:
        from stopctl.mirror import Mirror, remote

        assert settings.mirror is not None
        self._settings = settings
        self._remote: Remote = remote(settings.mirror, settings.mirror_options or {})
        self._mirror: Mirror = Mirror(self._remote)
        self.told: list[tuple[str, int]] = []
        self._replaced: set[str] = set()
        self._number = 0
        try:
            with self._reached():
                self._look: Look = self._mirror.look()
        except BaseException:
            self.give_up()
            raise
        self.there = {commit.name for commit in self._look.commits}

    @contextmanager
    def _reached(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise SaveError(
                f"{self._remote.url} does not answer, so nobody can say whether another machine has gone "
                f"on with this run ({error}): try again when it does, or train without mirror="
            ) from error

    def prepare(self, store: Store, check: Callable[[dict[str, Any] | None, str], None]) -> None:
        """Bring the run back from the mirror where the directory has none, or is told to have none.

        Args:
            store: locked.
            check: refuses the run.json of another goal, which is of that place.

        Raises:
            LockedError: another machine has gone on since this directory was written.
            OrderError: ``resume`` does not accept what the mirror has.
            StateError: it has another goal.
            DamagedError: it has checkpoints, and none is good.
            SaveError: it does not answer, or the disk fails.
        """
        look, newest, settings = self._look, self._look.newest, self._settings
        here = store.meta is not None and RESTORING not in store.meta
        if newest is None:
            return
        stale = here and not look.is_followed_by(store.meta)
        if stale and not settings.take_over:
            raise self._stale(store.path, newest)
        if look.commits:
            where = self._remote.url
            check(None if look.meta is None else dict(look.meta), where)
            if settings.resume == "never":
                raise OrderError(
                    f"{where} holds a run (newest checkpoint: {look.commits[0].name}), but resume='never': "
                    "use another mirror, or write resume='auto' to go on"
                )
            if stale:
                aside = store.set_run_aside()
                self._tell(f"the run that was here is older than {where}, and set aside in {aside}")
        if not newest.closed and (stale or not here):  # else this very directory was locked by it
            self._tell(f"writer {newest.number} on {newest.host} has not closed; it is fenced now")
        self.claim(store)
        self._bring_back(store)

    def _stale(self, directory: Path, newest: Claim) -> LockedError:
        instead = (
            f"take_over=True sets it aside and brings the newest of {self._remote.url} back"
            if self._look.commits
            else "nothing is mirrored since, and take_over=True goes on with it"
        )
        return LockedError(
            f"{directory} is older than {self._remote.url}, or another run: writer {newest.number}, process "
            f"{newest.pid} on {newest.host}, has claimed that since, {newest.started}; {instead}; or give "
            "another mirror",
            host=newest.host,
            pid=newest.pid,
            started=newest.started,
        )

    def _bring_back(self, store: Store) -> None:
        with self._reached():
            restored = self._mirror.restore(store.path, self._wanted)
        store.reread()
        for name, why in restored.damaged.items():
            self._tell(f"{name} of {self._remote.url} is damaged and left there: {why}")
        if restored.infos:
            names = ", ".join(info.name for info in restored.infos)
            self._tell(f"brought back from {self._remote.url}: {names}", logging.INFO)

    def replace(self, store: Store, broken: Mapping[str, str], names: Sequence[str]) -> CheckpointInfo | None:
        """Bring back the first of some damaged checkpoints that the mirror has whole.

        Args:
            store: locked.
            broken: why they are damaged here, by name.
            names: in the order in which they are tried, each once.

        Raises:
            SaveError: the mirror does not answer, or the disk fails.
        """
        for name in names:
            commit = next((each for each in self._look.commits if each.name == name), None)
            if commit is None or name in self._replaced or name not in store.names():
                continue
            self._replaced.add(name)
            if not store.make_way(name):
                continue
            aside = f"{name} is damaged and set aside: {broken[name]}"
            try:
                with self._reached():
                    info = self._mirror.fetch(commit, store.path / CHECKPOINTS)
            except DamagedError as error:
                self._tell(f"{aside}; so is that of {self._remote.url}: {error}")
                continue
            self._tell(f"{aside}; brought back from {self._remote.url}")
            return store.refreshed([info])[0]
        return None

    def _wanted(self, infos: Sequence[CheckpointInfo]) -> list[str]:
        """What the run would keep; the newest one is the mirror's own choice."""
        if self._settings.keep is None:
            return [info.name for info in infos]
        gone = doomed(self._settings.keep, list(infos), self._settings.goal, set())
        return [info.name for info in infos if info.name not in gone]

    def claim(self, store: Store) -> int:
        """Become the mirror's writer, once; returns the number, for ``store.begin``.

        Raises:
            LockedError: another machine has just done so. SaveError: the mirror does not answer.
            SettingError: it does not keep two writers apart.
        """
        from stopctl.mirror import probe

        if not self._number:
            with self._reached():
                probe(self._remote)
            self._number = self._mirror.claim(store.path, self._look, store.next_writer)
        return self._number

    @property
    def mark(self) -> dict[str, Any]:
        """What run.json tells of the claim."""
        return self._mirror.mark

    def uploader(self, *args: Any) -> Uploader:
        """The uploader of the opened run; its arguments from ``store`` on."""
        if self._settings.keep is None:  # nothing is deleted but by hand, and what is goes there, too
            return Uploader(self._mirror, self._remote, *args)
        return Uploader(self._mirror, self._remote, *args, want=self._wanted)

    def give_up(self) -> None:
        """End it where the run was not opened: what was claimed is given back, as far as that goes."""
        try:
            if self._number:
                self._mirror.end()
            self._remote.close()
        except Exception as error:
            log.warning("%s: %s", self._remote.url, error)

    def _tell(self, text: str, level: int = logging.WARNING) -> None:
        log.log(level, "%s", text)
        self.told.append((text, level))

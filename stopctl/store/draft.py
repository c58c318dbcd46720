"""A checkpoint on its way: its directory appears whole, by one rename, or goes."""

from __future__ import annotations

import secrets
from collections.abc import Collection, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

from stopctl.core.errors import OrderError, SaveError, SettingError, TreeError
from stopctl.store import safetensors, strict
from stopctl.store.commit import TEMPORARY, check_room, link, put, withdraw
from stopctl.store.fence import Fence
from stopctl.store.files import Files, as_save_error
from stopctl.store.frozen import Source, Unchanged
from stopctl.store.hashed import Bytes, FileFact
from stopctl.store.manifest import (
    CHUNKS,
    FROZEN,
    MANIFEST,
    MAX_RANKS,
    NAME,
    PARTS,
    STATE,
    STATE_LIMIT,
    TENSORS,
    CheckpointInfo,
    encode,
    is_ranks,
    parse,
)
from stopctl.store.partfile import encode_parts
from stopctl.store.parts import PartFact, gathered, put_part, whole_arrays
from stopctl.store.rundir import FORMAT
from stopctl.store.tree import Leaf, Sharded, Tree, flatten


@dataclass(frozen=True, slots=True)
class Shares:
    """What goes into which file.

    Args:
        contents: of the files to be written.
        frozen: what ``frozen.safetensors`` holds, if there is any.
        source: what it can be linked to; it is not in `contents` then.
    """

    contents: Mapping[str, Sequence[Bytes]]
    frozen: Sequence[Bytes]
    source: Source | None


class Writing:
    """The saves of one writer.

    Args:
        files: the file operations.
        folder: where checkpoints are.
        fence: asked just before a checkpoint appears.
        verify: read every file back before that.
    """

    def __init__(self, files: Files, folder: Path, fence: Fence, *, verify: bool) -> None:
        self.files = files
        self.folder = folder
        self.fence = fence
        self.verify = verify
        self._unchanged = Unchanged()
        self._newest: str | None = None

    def shares(self, leaves: Mapping[str, Leaf], state: Sequence[Bytes]) -> Shares:
        """Tell the arrays that have changed from the others, and where those are on the disk already.

        Raises:
            OSError: the names of the checkpoints cannot be read.
        """
        moving, still = self._unchanged.part(leaves)
        contents: dict[str, Sequence[Bytes]] = {TENSORS: safetensors.encode(moving), STATE: state}
        if not still:
            return Shares(contents, (), None)
        frozen = safetensors.encode(still)
        names = {entry.name for entry in self.files.entries(self.folder) if NAME.fullmatch(entry.name)}
        source = self._unchanged.source(self.folder, self._newest, names)
        if source is None:
            contents[FROZEN] = frozen
        return Shares(contents, frozen, source)

    def saved(self, info: CheckpointInfo, facts: Mapping[str, FileFact], source: Source | None) -> None:
        """A checkpoint is on the disk, with these files."""
        self._newest = info.name
        if FROZEN in facts:
            try:
                stamp = self.files.stamp(info.path / FROZEN)
            except OSError:  # it is saved, whatever a look at it says
                return
            self._unchanged.saved(info.name, facts[FROZEN], stamp, source)

    def forget(self) -> None:
        """Link nothing that was written so far."""
        self._unchanged.forget()


class Content(NamedTuple):
    """What rank 0 writes, taken apart: its arrays, those that lie in pieces, and all else as JSON."""

    leaves: Mapping[str, Leaf]
    sharded: Mapping[str, Sharded]
    state: bytes

    @classmethod
    def of(cls, components: Mapping[str, Tree], state: strict.JsonValue) -> Content:
        """TreeError for what a checkpoint cannot hold."""
        skeleton, arrays = flatten(components)
        body = {"format": FORMAT, "components": skeleton, "state": strict.plain(state, "state")}
        text = strict.dumps(body)
        if len(text) > STATE_LIMIT:
            raise TreeError(
                f"the plain values of the state make {len(text)} bytes of JSON, more than {STATE_LIMIT}: put "
                "numbers into arrays"
            )
        return cls(
            {name: array for name, array in arrays.items() if isinstance(array, Leaf)},
            {name: array for name, array in arrays.items() if isinstance(array, Sharded)},
            text,
        )


class Draft:
    """One save of a team, as rank 0 makes it: `write` and `publish`, or `withdraw` after anybody's error.

    Args:
        writing: the writer's saves.
        info: what the checkpoint will be.
    """

    info: CheckpointInfo
    """The checkpoint, as far as it is known before it is written."""
    directory: Path
    """Where every rank puts what is to be in it."""

    def __init__(self, writing: Writing, info: CheckpointInfo) -> None:
        self.info = info
        self.directory = writing.folder / f"{TEMPORARY}{info.name}-{secrets.token_hex(4)}"
        self._writing = writing
        self._files = writing.files
        self._at: Path | None = None
        self._facts: dict[str, FileFact] = {}
        self._source: Source | None = None
        self._sharded: Mapping[str, Sharded] = {}
        self._per_rank: tuple[str, ...] = ()

    def begin(self) -> None:
        """Make the directory.

        Raises:
            SaveError: the name is taken, or an operation failed.
        """
        with self._saving():
            if self._files.exists(self.info.path):
                raise SaveError(
                    f"{self.info.path} exists already, and a checkpoint is never overwritten", self.info.path
                )
            self._at = self.directory
            self._files.mkdir(self.directory)

    def write(
        self, components: Mapping[str, Tree], *, state: strict.JsonValue, per_rank: Collection[str] = ()
    ) -> None:
        """Write all that rank 0 has, but for its pieces of `Sharded` arrays (`parts.write_part` does that).

        Args:
            components: those that were named when the draft was made; read during the call only.
            state: the controller's, plain JSON.
            per_rank: the names of those that each rank has for itself.

        Raises:
            TreeError: `components` or `state` hold what a checkpoint cannot; nothing is written.
            SettingError: other components than were named; nothing is written.
            SaveError: no room, or an operation failed.
        """
        if components.keys() != set(self.info.components):
            raise SettingError(f"a draft of {self.info.components} is not written as {tuple(components)}")
        self._per_rank = tuple(name for name in components if name in per_rank)
        whole_arrays({name: components[name] for name in self._per_rank})
        self._put(Content.of(components, state))

    def publish(self, parts: Sequence[PartFact] = (), ranks: int = 1) -> CheckpointInfo:
        """Look at what all ranks have written, and let the checkpoint appear; then it is on the disk.

        Args:
            parts: what each rank told. One process alone may leave them out, if nothing lies in pieces.
            ranks: how many there are.

        Returns:
            The checkpoint, as its manifest has it.

        Raises:
            OrderError: nothing has been written.
            SaveError: the parts do not make a checkpoint, or an operation failed; there is none.
        """
        if not self._facts:
            raise OrderError(f"{self.info.name}: call write() before publish()")
        if not is_ranks(ranks):
            raise SettingError(f"ranks is an int from 1 to {MAX_RANKS}, not {ranks!r}")
        facts, info, size = dict(self._facts), replace(self.info, ranks=ranks), 0
        with self._saving():
            if ranks > 1 or self._sharded or any(part.bytes for part in parts):
                arrays = {name: (array.dtype, array.shape) for name, array in self._sharded.items()}
                shared = set(info.components).difference(self._per_rank)
                team = gathered(self._files, self.directory, parts, ranks, shared, self._per_rank, arrays)
                facts[PARTS], size = self._file(PARTS, [encode_parts(team)]), team.bytes
            if chunks := b"".join(facts[name].chunks for name in sorted(facts)):
                facts[CHUNKS] = self._file(CHUNKS, [chunks])
            data = encode(info, facts, size)
            said = replace(parse(data, self._writing.folder)[0], components=info.components)
            self._file(MANIFEST, [data])
            self._files.sync_directory(self.directory)
            self._writing.fence.check_all()
            self._files.rename(self.directory, info.path)
            self._at = info.path
            self._files.sync_directory(self._writing.folder)
        self._at = None
        self._writing.saved(said, facts, self._source)
        return said

    def commit(self, content: Content) -> CheckpointInfo:
        """All of it, for one process; after any error there is no such checkpoint."""
        try:
            self._put(content)
            parts = []
            if content.sharded:
                more = {"verify": self._writing.verify}
                parts = [put_part(self._files, self.directory, 0, {}, content.sharded, **more)]
            return self.publish(parts)
        except BaseException:
            self.withdraw()
            raise

    def withdraw(self) -> None:
        """Take back what was not published, as far as that goes; raises nothing."""
        self._writing.forget()
        if self._at is not None:
            withdraw(self._files, self._at)
        self._at = None

    def _put(self, content: Content) -> None:
        with self._saving():
            shares = self._writing.shares(content.leaves, [content.state])
            check_room(self._files, self._writing.folder, self.info.name, shares.contents)
            if self._at is None:
                self.begin()
            self._facts = {name: self._file(name, parts) for name, parts in shares.contents.items()}
            if shares.source is not None:
                at, verify = self.directory / FROZEN, self._writing.verify
                self._facts[FROZEN] = link(self._files, at, shares.source, shares.frozen, verify)
        self._source, self._sharded = shares.source, content.sharded

    def _file(self, name: str, parts: Sequence[Bytes]) -> FileFact:
        return put(self._files, self.directory / name, parts, self._writing.verify)

    def _saving(self) -> AbstractContextManager[None]:
        return as_save_error(f"saving {self.info.name}", self.info.path)

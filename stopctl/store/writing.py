"""How the arrays of a checkpoint are shared out to its files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from stopctl.store import safetensors
from stopctl.store.commit import Contents
from stopctl.store.fence import Fence
from stopctl.store.files import Files
from stopctl.store.hashed import Bytes, FileFact
from stopctl.store.info import CheckpointInfo
from stopctl.store.leaf import Leaf
from stopctl.store.manifest import FROZEN, NAME, PACKED, STATE, TENSORS
from stopctl.store.packed import Packed
from stopctl.store.unchanged import Source, Unchanged


@dataclass(frozen=True, slots=True)
class Shares:
    """What goes into which file.

    Args:
        contents: of the files to be written.
        frozen: what ``frozen.safetensors`` holds, if there is any.
        source: what it can be linked to; it is not in `contents` then.
        unpacked: bytes of the arrays that change before they are compressed, None where they are not.
    """

    contents: Mapping[str, Contents]
    frozen: Sequence[Bytes]
    source: Source | None
    unpacked: int | None


class Writing:
    """The saves of one writer.

    Args:
        files: the file operations.
        folder: where checkpoints are.
        fence: asked just before a checkpoint appears.
        verify: read every file back before that.
        pack: compress what changes.
    """

    def __init__(self, files: Files, folder: Path, fence: Fence, *, verify: bool, pack: bool) -> None:
        self.files = files
        self.folder = folder
        self.fence = fence
        self.verify = verify
        self._pack = pack
        self._unchanged = Unchanged()
        self._newest: str | None = None

    def shares(self, leaves: Mapping[str, Leaf], state: Sequence[Bytes]) -> Shares:
        """Tell the arrays that have changed from the others, and where those are on the disk already.

        Raises:
            OSError: the names of the checkpoints cannot be read.
        """
        moving, still = self._unchanged.part(leaves)
        tensors = safetensors.encode(moving)
        contents: dict[str, Contents] = {TENSORS: tensors, STATE: state}
        unpacked = None
        if self._pack:
            packed = Packed(tensors)
            contents, unpacked = {PACKED: packed, STATE: state}, packed.unpacked
        if not still:
            return Shares(contents, (), None, unpacked)
        frozen = safetensors.encode(still)
        names = {entry.name for entry in self.files.entries(self.folder) if NAME.fullmatch(entry.name)}
        source = self._unchanged.source(self.folder, self._newest, names)
        if source is None:
            contents[FROZEN] = frozen
        return Shares(contents, frozen, source, unpacked)

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

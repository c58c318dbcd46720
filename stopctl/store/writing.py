"""How the arrays of a checkpoint are shared out to its files."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from stopctl.store import commit, safetensors
from stopctl.store.errors import as_save_error
from stopctl.store.fence import Fence
from stopctl.store.files import Files
from stopctl.store.hashed import Bytes
from stopctl.store.info import CheckpointInfo
from stopctl.store.leaf import Leaf
from stopctl.store.manifest import FROZEN, NAME, PACKED, STATE, TENSORS
from stopctl.store.packed import Packed
from stopctl.store.unchanged import Unchanged


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
        self._files = files
        self._folder = folder
        self._fence = fence
        self._verify = verify
        self._pack = pack
        self._unchanged = Unchanged()
        self._newest: str | None = None

    def save(
        self, info: CheckpointInfo, leaves: Mapping[str, Leaf], state: Sequence[Bytes]
    ) -> CheckpointInfo:
        """Write the arrays that have changed, link or write the others, and the rest of the state.

        Raises:
            SaveError: there is no such checkpoint.
        """
        try:
            info = self._save(info, leaves, state)
        except BaseException:
            self.forget()
            raise
        self._newest = info.name
        return info

    def forget(self) -> None:
        """Link nothing that was written so far."""
        self._unchanged.forget()

    def _save(
        self, info: CheckpointInfo, leaves: Mapping[str, Leaf], state: Sequence[Bytes]
    ) -> CheckpointInfo:
        moving, still = self._unchanged.part(leaves)
        tensors = safetensors.encode(moving)
        contents: dict[str, commit.Parts] = {TENSORS: tensors, STATE: state}
        if self._pack:
            packed = Packed(tensors)
            contents, info = {PACKED: packed, STATE: state}, replace(info, unpacked=packed.unpacked)
        source, frozen = None, safetensors.encode(still)
        if still:
            with as_save_error(f"saving {info.name}", self._folder):
                names = {
                    entry.name for entry in self._files.entries(self._folder) if NAME.fullmatch(entry.name)
                }
            source = self._unchanged.source(self._folder, self._newest, names)
            if source is None:
                contents[FROZEN] = frozen
        info, facts = commit.publish(
            self._files,
            self._folder,
            info,
            contents,
            self._fence.check_all,
            verify=self._verify,
            source=source,
            frozen=frozen,
        )
        if still:
            with contextlib.suppress(OSError):  # it is saved, whatever a look at it says
                stamp = self._files.stamp(info.path / FROZEN)
                self._unchanged.saved(info.name, facts[FROZEN], stamp, source)
        return info

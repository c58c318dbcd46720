"""What reads a run: a directory, or a mirror, for which more is loaded."""

from __future__ import annotations

import os

from stopctl.store import Reader
from stopctl.store.rundir import url_of


def open_run(directory: str | os.PathLike[str]) -> Reader:
    """What reads a run, in a directory or in a mirror (``"s3://bucket/runs/mnist"``).

    Raises:
        NotARunError, DamagedError: as `Reader` and `MirrorReader` do.
        SettingError: a URL that cannot be.
        OSError: the store does not answer.
    """
    url = url_of(directory)
    if url is None:
        return Reader(directory)
    from stopctl.mirror.reader import open_mirror

    return open_mirror(url)

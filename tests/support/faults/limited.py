"""A writer that the operating system refuses what it asks for: real errors, none of them made up.

    python limited.py RUN

Saves 1 as it may; 2 where a file may have 8 KiB at most (RLIMIT_FSIZE: the write is short, the next one fails);
3 where no more files may be open; then 4 as it may. It imports the store alone, and tells a line of each.
"""

from __future__ import annotations

import contextlib
import errno
import os
import resource
import sys
from collections.abc import Iterator
from pathlib import Path

from stopctl.core.errors import SaveError
from stopctl.store import FILES
from support.faults.promises import begun, commit

SIZE = 20_000


@contextlib.contextmanager
def limit(what: int, number: int) -> Iterator[None]:
    before = resource.getrlimit(what)
    resource.setrlimit(what, (number, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(what, before)


def main() -> None:
    store = begun(Path(sys.argv[1]), FILES)
    free = os.dup(0)  # the next descriptor that would be given
    os.close(free)
    limits = {
        1: contextlib.nullcontext(),
        2: limit(resource.RLIMIT_FSIZE, 8192),
        3: limit(resource.RLIMIT_NOFILE, free),
        4: contextlib.nullcontext(),
    }
    for number, limited in limits.items():
        try:
            with limited:
                info = commit(store, number, size=SIZE)
        except SaveError as error:
            print(number, errno.errorcode[getattr(error.__cause__, "errno", 0)])
        else:
            store.append("saved", name=info.name)
            print(number, "saved")
    store.close()


if __name__ == "__main__":
    main()

"""The page of runs, served in a thread of the test."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from stopctl.report.server import Server, Watched


@contextmanager
def serving(*paths: Path) -> Iterator[Server]:
    """A server that looks at the runs whenever it is asked."""
    server = Server(Watched(paths, 0.0), 0, 0.02)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join()

"""The page while its runs train: served to this machine alone, renewed whenever a run has changed."""

from __future__ import annotations

import contextlib
import os
import sys
import threading
import time
from collections.abc import Callable, Hashable, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from stopctl.core.errors import StopctlError
from stopctl.report.data import PageRun, page_run, short_names
from stopctl.report.page import checked, page
from stopctl.runs.standing import find_runs, holder, locks_now
from stopctl.store.rundir import CHECKPOINTS, url_of

ADDRESS = "127.0.0.1"

BEAT = 15.0
"""Seconds after which a listener is told that all is as it was, so that one who left is noticed."""

SELDOM = 30.0
"""Seconds from one look at a mirror to the next."""

HEADERS = {
    "Cache-Control": "no-store",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}


class Watched:
    """The page of runs that change. A run is read again when its files differ; nothing is ever written.

    Args:
        paths: runs, and folders in which new runs may appear.
        interval: seconds for which an answer counts as new.

    Raises:
        NotARunError, DamagedError, OSError: where none can be read.
    """

    def __init__(self, paths: Sequence[Path], interval: float) -> None:
        self._paths, self._interval = paths, interval
        self._lock = threading.Lock()
        self._known: dict[Path, tuple[Hashable, PageRun | None, str]] = {}
        self._looked, self._version, self._text = -1.0, 0, ""
        self._begun = time.time_ns()  # a page of another process is another version
        self._look()

    def now(self) -> tuple[str, str]:
        """The version and the page."""
        with self._lock:
            if time.monotonic() - self._looked >= self._interval:
                self._look()
            return f"{self._begun}-{self._version}", self._text

    def _look(self) -> None:
        changed, locks = False, locks_now()
        paths = dict.fromkeys([*self._known, *self._found()])
        for path, name in zip(paths, short_names(list(paths)), strict=True):
            seen, run, _ = self._known.get(path, (None, None, ""))
            if (seen_now := (name, _traces(path, locks))) == seen:
                continue
            wrong = ""
            try:
                run = page_run(path, name, locks=locks)
            except (StopctlError, OSError) as error:
                wrong = _one_line(error)
            self._known[path] = (seen_now, run, wrong)
            changed = True
        if all(run is None for _, run, _ in self._known.values()):
            page_run(next(iter(self._known)))  # raises what is wrong
        self._looked = time.monotonic()
        if changed:
            self._version += 1
            self._text = self._page()

    def _found(self) -> list[Path]:
        """The runs that are there now; what has none stands for itself, at first."""
        found: list[Path] = []
        for path in self._paths:
            try:
                found += find_runs(path) or ([] if self._known else [path])
            except (StopctlError, OSError):  # a store that does not answer now: its runs are known
                if not self._known:
                    raise
        return found

    def _page(self) -> str:
        notices: list[str] = []
        for path, (_, run, wrong) in self._known.items():
            if wrong:
                shown = "it is shown as it was last" if run else "it is left out"
                notices.append(f"{run.name if run else path.name} cannot be read, {shown}: {wrong}")
        runs = checked([run for _, run, _ in self._known.values() if run is not None], notices.append)
        return page(runs, notices=notices, version_served=f"{self._begun}-{self._version}")


def _traces(path: Path, locks: Path | str) -> Hashable:
    """What differs when a run has changed; cheap."""
    if url_of(path) is not None:
        return int(time.monotonic() // SELDOM)
    found: list[Hashable] = []
    for name in ("run.json", "journal.jsonl", CHECKPOINTS):
        with contextlib.suppress(OSError):
            stat = os.stat(path / name)
            found.append((name, stat.st_ino, stat.st_size, stat.st_mtime_ns))
    with contextlib.suppress(StopctlError, OSError):
        found.append(holder(path, locks=locks))
    return tuple(found)


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split())


class Server(ThreadingHTTPServer):
    """Serves the page at ``/``, and at ``/events`` its version, again whenever that changes.

    Args:
        watched: the page. port: 0 for one that is free. interval: seconds from one look to the next.

    Raises:
        OSError: the port is taken.
    """

    daemon_threads = True
    block_on_close = False

    def __init__(self, watched: Watched, port: int, interval: float) -> None:
        self.watched, self.interval = watched, interval
        self.ended = threading.Event()
        super().__init__((ADDRESS, port), Handler)
        self.hosts = {f"{name}:{self.server_port}" for name in (ADDRESS, "localhost")}
        if self.server_port == 80:
            self.hosts |= {ADDRESS, "localhost"}

    @property
    def url(self) -> str:
        """Where the page is."""
        return f"http://{ADDRESS}:{self.server_port}/"

    def server_close(self) -> None:
        """Close, and let the listeners go."""
        self.ended.set()
        super().server_close()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Tell what went wrong; a browser that leaves in the middle of an answer is no error."""
        if not isinstance(sys.exception(), ConnectionError | TimeoutError):
            super().handle_error(request, client_address)


class Handler(BaseHTTPRequestHandler):
    """Answers one request: GET and HEAD alone, and only if it was meant for this server."""

    server: Server
    server_version, sys_version = "stopctl", ""
    timeout = 30

    def do_GET(self) -> None:
        """The page, or its versions as they come."""
        self._answer(body=True)

    def do_HEAD(self) -> None:
        """What GET would answer, without the body."""
        self._answer(body=False)

    def _refuse(self) -> None:
        self._send(405, "text/plain; charset=utf-8", b"read only: GET and HEAD\n", {"Allow": "GET, HEAD"})

    do_POST = do_PUT = do_DELETE = do_PATCH = do_OPTIONS = do_TRACE = do_CONNECT = _refuse

    def _answer(self, *, body: bool) -> None:
        plain = "text/plain; charset=utf-8"
        if self.headers.get_all("Host") not in [[host] for host in self.server.hosts]:
            # a name of somebody else's that leads here (DNS rebinding) must not read the page
            self._send(421, plain, f"this is {self.server.url}\n".encode(), body=body)
        elif self.path == "/":
            text = self.server.watched.now()[1].encode("utf-8")
            self._send(200, "text/html; charset=utf-8", text, {"Content-Security-Policy": POLICY}, body=body)
        elif self.path == "/events":
            self._events(body=body)
        else:
            self._send(404, plain, b"there are / and /events\n", body=body)

    def _send(
        self, code: int, kind: str, data: bytes, more: dict[str, str] | None = None, *, body: bool = True
    ) -> None:
        self._head(code, kind, {"Content-Length": str(len(data)), **(more or {})})
        if body:
            self.wfile.write(data)

    def _head(self, code: int, kind: str, more: dict[str, str]) -> None:
        self.send_response(code)
        for name, value in {"Content-Type": kind, **HEADERS, **more}.items():
            self.send_header(name, value)
        self.end_headers()

    def _events(self, *, body: bool) -> None:
        self._head(200, "text/event-stream", {})
        told, at = "", 0.0
        while body and not self.server.ended.is_set():
            version, _ = self.server.watched.now()
            if version != told or time.monotonic() - at > BEAT:
                self.wfile.write(f"data: {version}\n\n".encode())
                told, at = version, time.monotonic()
            self.server.ended.wait(self.server.interval)

    def log_message(self, format: str, *arguments: object) -> None:
        """Requests are not told."""


POLICY = "frame-ancestors 'none'"
"""What the page's own policy, in its head, cannot say; a browser obeys both."""


def serve(
    paths: Sequence[Path], *, port: int = 0, interval: float = 1.0, tell: Callable[[str], object]
) -> None:
    """Serve the page of these runs to this machine until Ctrl-C.

    Args:
        paths: runs, and folders with runs in or below them.
        port: 0 for one that is free.
        interval: seconds from one look at the runs to the next.
        tell: is told the URL.

    Raises:
        NotARunError, DamagedError: where no run can be read.
        OSError: the port is taken.
    """
    with Server(Watched(paths, interval), port, interval) as server:
        tell(server.url)
        with contextlib.suppress(KeyboardInterrupt):
            server.serve_forever(poll_interval=0.2)

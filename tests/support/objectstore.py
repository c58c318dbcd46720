"""A real S3 server (moto) in a process of its own, and a proxy before it that fails as it is told."""

from __future__ import annotations

import http.client
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import urlsplit

import pytest

KEYS = {"key": "AKIDtesting", "secret": "a/secret+of+40/letters"}
SERVER = """
import sys
from moto.server import ThreadedMotoServer
server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
server.start()
print(*server.get_host_and_port(), flush=True)
sys.stdin.read()
"""


@contextmanager
def running() -> Iterator[str]:
    """The address of a server with nothing in it; it ends with this process, too."""
    command = [sys.executable, "-W", "ignore", "-c", SERVER]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as server:
        assert server.stdout is not None
        host, port = server.stdout.readline().split()
        try:
            yield f"http://{host}:{port}"
        finally:
            server.kill()


@pytest.fixture(scope="session")
def s3_server() -> Iterator[str]:
    """The address of a server with a bucket called "runs"."""
    with running() as address:
        call(address, "create_bucket", Bucket="runs")
        yield address


def options(address: str) -> dict[str, Any]:
    """What `remote` takes to reach a server on the loopback."""
    return {**KEYS, "client_kwargs": {"endpoint_url": address, "region_name": "us-east-1"}}


def call(address: str, what: str, **arguments: Any) -> dict[str, Any]:
    """An operation of S3 by another client, such as ``list_multipart_uploads``."""
    import boto3

    client = boto3.client(
        "s3",
        endpoint_url=address,
        region_name="us-east-1",
        aws_access_key_id=KEYS["key"],
        aws_secret_access_key=KEYS["secret"],
    )
    try:
        answer: dict[str, Any] = getattr(client, what)(**arguments)
        return answer
    finally:
        client.close()


SLOW_DOWN, EXPIRED, DENIED = (503, "SlowDown"), (403, "ExpiredToken"), (403, "AccessDenied")
DROPPED, LOST, CUT = (0, "dropped"), (0, "lost"), (0, "cut")
"""What a proxy may do: answer so, or break the connection before the work, after it, or in the answer."""


class Proxy(ThreadingHTTPServer):
    """Passes requests on, but for those that `faults` are for.

    `only` says which these are, `seen` has the methods and paths of all, `page` is how many keys are listed
    at once; `look` is called before each is passed on, and when it is done, before it is answered;
    `signed` has the signature of the newest.
    """

    daemon_threads = True

    def __init__(self, target: str, port: int = 0) -> None:
        super().__init__(("127.0.0.1", port), _Handler)
        self.target = urlsplit(target).netloc
        self.stopped = False
        self.reset()
        self.secret = KEYS["secret"]

    def reset(self) -> None:
        """Pass all on from now on."""
        self.faults: deque[tuple[int, str]] = deque()
        self.only: Callable[[str, str], bool] = lambda method, path: True
        self.seen: list[tuple[str, str]] = []
        self.signed = ""
        self.page: int | None = None
        self.look: Callable[[str, str, bool], object] = lambda method, path, done: None

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def handle_error(self, request: Any, client_address: Any) -> None:
        pass  # clients that go away are what these tests are about


@contextmanager
def proxy(target: str, port: int = 0) -> Iterator[Proxy]:
    """A proxy before a server; another one may take its port after it."""
    with Proxy(target, port) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
        thread.start()
        try:
            yield server
        finally:
            server.stopped = True  # for connections that are open
            server.shutdown()
            thread.join()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Proxy

    def _pass(self) -> None:
        body = self._body()
        self.server.seen.append((self.command, self.path))
        self.server.signed = self.headers.get("Authorization", "")
        self.server.look(self.command, self.path, False)
        fault = None
        if self.server.faults and self.server.only(self.command, self.path):
            fault = self.server.faults.popleft()
        if fault == DROPPED or self.server.stopped:
            self.close_connection = True
            return
        if fault is not None and fault[0]:
            text = (
                f"<Error><Code>{fault[1]}</Code><Message>no; {self.server.secret}</Message></Error>".encode()
            )
            self._answer(fault[0], {"Content-Type": "application/xml"}, text)
            return
        more = f"&max-keys={self.server.page}" if self.server.page and "list-type=2" in self.path else ""
        connection = http.client.HTTPConnection(self.server.target)
        headers = {name: value for name, value in self.headers.items() if name.lower() != "transfer-encoding"}
        connection.request(
            self.command, self.path + more, body, {**headers, "Content-Length": str(len(body))}
        )
        answer = connection.getresponse()
        content = answer.read()
        connection.close()
        self.server.look(self.command, self.path, True)
        if fault == LOST:
            self.close_connection = True
            return
        self._answer(answer.status, dict(answer.getheaders()), content, cut=fault == CUT)

    do_GET = do_PUT = do_POST = do_DELETE = do_HEAD = _pass

    def _answer(self, status: int, headers: dict[str, str], content: bytes, *, cut: bool = False) -> None:
        self.send_response_only(status)
        length = {} if self.command == "HEAD" else {"Content-Length": str(len(content))}
        skipped = {"transfer-encoding", "connection", *(name.lower() for name in length)}
        for name, value in {
            **{n: v for n, v in headers.items() if n.lower() not in skipped},
            **length,
        }.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content[: len(content) // 2] if cut else content)
            self.close_connection = cut

    def _body(self) -> bytes:
        if "chunked" not in self.headers.get("Transfer-Encoding", ""):
            return self.rfile.read(int(self.headers.get("Content-Length", 0)))
        parts = []
        while size := int(self.rfile.readline().partition(b";")[0], 16):
            parts.append(self.rfile.read(size))
            self.rfile.readline()
        self.rfile.readline()
        return b"".join(parts)

    def log_message(self, *_: Any) -> None:
        pass

"""The page while its runs train: who may read it, what it tells, and that it only reads."""

from __future__ import annotations

import http.client
import os
import shutil
import signal
import subprocess
import sys
from contextlib import contextmanager

import pytest

from stopctl import Maximize
from stopctl.report.server import ADDRESS
from support.pageserver import serving
from support.ran import files_of, ran


@contextmanager
def asked(server, method="GET", path="/", **headers):
    connection = http.client.HTTPConnection(ADDRESS, server.server_port, timeout=30)
    try:
        connection.putrequest(method, path, skip_host="Host" in headers)
        for name, value in headers.items():
            if value is not None:
                connection.putheader(name, value)
        connection.endheaders()
        yield connection.getresponse()
    finally:
        connection.close()


def text_of(server):
    with asked(server) as answer:
        return answer.read().decode()


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    run = ran(tmp_path_factory.mktemp("served") / "run")
    with serving(run) as server:
        yield run, server


@pytest.mark.parametrize(
    ("method", "path", "headers", "code"),
    [
        ("GET", "/", {}, 200),
        ("HEAD", "/", {}, 200),
        ("HEAD", "/events", {}, 200),
        ("GET", "/journal.jsonl", {}, 404),
        ("GET", "/../run.json", {}, 404),
        ("HEAD", "/x", {}, 404),
        *((method, "/", {}, 405) for method in ("POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE")),
        ("GET", "/", {"Host": "evil.example"}, 421),
        ("GET", "/events", {"Host": "evil.example:80"}, 421),
        ("GET", "/", {"Host": ADDRESS}, 421),  # without the port
        ("GET", "/", {"Host": None}, 421),
    ],
)
def test_it_answers_get_and_head_of_its_own_name_alone_and_changes_nothing(
    served, method, path, headers, code
):
    run, server = served
    before = files_of(run)
    with asked(server, method, path, **headers) as answer:
        body = answer.read() if "/events" not in path or code != 200 else b""
        assert answer.status == code
        assert (body == b"") == (method == "HEAD")
        assert answer.headers["X-Content-Type-Options"] == "nosniff"
        assert answer.headers["Cache-Control"] == "no-store"
        assert "Access-Control-Allow-Origin" not in answer.headers
        assert answer.headers["Server"].strip() == "stopctl"
    assert files_of(run) == before


def test_it_is_bound_to_this_machine_and_answers_to_both_of_its_names(served):
    _, server = served
    assert server.server_address[0] == ADDRESS
    with asked(server, Host=f"localhost:{server.server_port}") as answer:
        assert answer.status == 200
        assert answer.headers["Content-Security-Policy"] == "frame-ancestors 'none'"
        page = answer.read().decode()
    assert "connect-src 'self'" in page
    assert "Stopped after epoch 6: no improvement over 0.3 for 3 reports." in page


def test_what_changes_comes_as_a_new_version_and_what_is_lost_is_told(tmp_path):
    ran(tmp_path / "runs" / "alpha")
    beta = tmp_path / "runs" / "beta"
    with serving(tmp_path / "runs") as server, asked(server, path="/events") as events:
        assert "beta" not in text_of(server)

        def changed():
            """Wait for the next version; others may come before all is written."""
            line = events.readline()
            while not line.strip():
                line = events.readline()
            assert line.startswith(b"data: ")

        changed()
        ran(beta)
        changed()
        assert 'data-run="1"' in text_of(server)
        (beta / "run.json").write_text("{")
        changed()
        assert "beta cannot be read, it is shown as it was last: " in text_of(server)
        assert text_of(server).count("Stopped after epoch 6") == 2
        shutil.rmtree(beta)
        changed()
        assert "there is no such directory" in text_of(server)
        ran(tmp_path / "runs" / "gamma", goal=Maximize("val_loss"))
        changed()
        assert "left out: gamma: mixed directions" in text_of(server)


def test_a_listener_is_let_go_when_it_ends(tmp_path):
    with serving(ran(tmp_path)) as server, asked(server, path="/events") as events:
        assert events.readline().startswith(b"data: ")
        server.ended.set()
        assert events.read().replace(b"\n", b"") == b""


def test_the_command_prints_its_url_and_ends_cleanly_on_ctrl_c(tmp_path):
    run = ran(tmp_path / "run")
    before = files_of(run)
    code = "import signal, sys; from stopctl.cli import main; sys.argv[0] = 'stopctl'; "
    code += "signal.signal(signal.SIGINT, signal.default_int_handler); main()"  # a shell may leave it ignored
    with subprocess.Popen(
        [sys.executable, "-c", code, "watch", str(run), "--html"],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env={**os.environ, "PYTHONUNBUFFERED": "1"},
    ) as process:  # fmt: skip
        url = process.stdout.readline().strip()
        port = int(url.removeprefix(f"http://{ADDRESS}:").removesuffix("/"))
        connection = http.client.HTTPConnection(ADDRESS, port, timeout=30)
        connection.request("GET", "/")
        assert connection.getresponse().status == 200
        connection.close()
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=60)
    assert (process.returncode, out, err) == (0, "", "")
    assert files_of(run) == before

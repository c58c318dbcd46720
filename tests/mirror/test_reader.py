"""A run read from its mirror alone, in Python and by the commands."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest

from stopctl import Every, NotARunError, Run, SettingError, peek
from stopctl.cli.output import shown
from stopctl.export import export, load_exported
from stopctl.mirror.reader import mirrors_at
from stopctl.runs.choose import choose
from stopctl.runs.reader import open_run
from stopctl.runs.standing import read_run, runs_at
from stopctl.store.rundir import url_of
from support.mirrors.gate import rests
from support.objectstore import options
from support.ran import Command


@pytest.fixture
def mirror(tmp_path):
    """The URL of a run of four epochs, whose best is the second; its directory is gone."""
    url = f"file://{tmp_path}/disk/first"
    train(tmp_path / "first", url)
    shutil.rmtree(tmp_path / "first")
    return url


@pytest.fixture
def stopctl(monkeypatch, capsys):
    """The command, called in this process."""
    return Command(monkeypatch, capsys)


def train(directory, url, epochs=4, **settings):
    state = {"w": 0.0, "array": [0.0]}
    rules = {"stop": None, "save": Every(epochs=1), "keep": None, "notes": {"lr": 0.1}}
    with Run(directory, state=state, mirror=url, **(rules | settings)) as run:
        for epoch in run.epochs(epochs):
            state["w"] = float(epoch)
            run.report(val_loss=abs(epoch - 2))


def test_urls_are_known_as_paths_too():
    for url in ("s3://bucket/a/b", "file:///mnt/a", "memory://a/b", "gs://bucket/a"):
        assert url_of(url) == url_of(Path(url)) == shown(Path(url)) == url
    for path in ("runs/a", "/a:/b", "a:b", "~/x"):
        assert url_of(path) is None


def test_checkpoints_are_chosen_and_loaded(mirror, tmp_path):
    info, components = choose(mirror)
    assert (info.epoch, info.is_best, components["w"]) == (2, True, 2.0)
    assert shown(info.path) == f"{mirror}/checkpoints/{info.name}"
    assert choose(Path(mirror), "latest")[1]["w"] == 4.0
    assert peek(mirror) == (4, 0, 0.0, {"lr": 0.1})
    with pytest.raises(SettingError, match=f"{mirror} has no checkpoint for which='middle'"):
        choose(mirror, "middle")


def test_what_is_not_loaded_is_not_downloaded_and_nothing_is_left(mirror, monkeypatch, tmp_path):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "temporary"))
    (tmp_path / "temporary").mkdir()
    reader = open_run(mirror)
    came = []
    reader.tick = came.append
    infos = reader.list().good
    assert [info.epoch for info in infos] == [1, 2, 3, 4]
    assert came == []
    assert reader.load(infos[0])[0]["w"] == 1.0
    assert (
        sum(came)
        == infos[0].bytes - (reader.path / "checkpoints" / infos[0].name / "manifest.json").stat().st_size
    )
    assert len(list((tmp_path / "temporary").iterdir())) == 1
    del reader
    assert list((tmp_path / "temporary").iterdir()) == []


def test_a_damaged_one_is_named_and_the_next_is_taken(mirror, tmp_path, caplog):
    [state] = (tmp_path / "disk" / "first" / "data").glob("epoch-0002*/*/state.json")
    state.write_bytes(state.read_bytes().replace(b"2.0", b"2.5"))
    info, components = choose(mirror)
    assert (info.epoch, info.is_best, components["w"]) == (1, False, 1.0)
    assert "epoch-0002" in caplog.text
    [commit] = (tmp_path / "disk" / "first" / "commits").glob("epoch-0004*/*")
    commit.write_bytes(commit.read_bytes()[:-9])
    run = read_run(mirror)
    assert [damage[0][:10] for damage in run.standing.damaged] == ["epoch-0004"]
    assert run.standing.checkpoints == 3


def test_one_that_is_deleted_meanwhile_is_passed_over(mirror, tmp_path):
    reader = open_run(mirror)
    for each in (tmp_path / "disk" / "first").glob("*/epoch-0002*"):
        shutil.rmtree(each)
    assert choose(reader)[0].epoch == 1
    assert [info.epoch for info in reader.list().good] == [1, 3, 4]


def test_a_run_that_trains_elsewhere_is_running(tmp_path, monkeypatch, stopctl):
    url = f"file://{tmp_path}/disk/first"
    state = {"w": 0.0}
    with Run(tmp_path / "first", state=state, stop=None, mirror=url) as run:
        with pytest.raises(NotARunError, match="nothing of it is mirrored yet"):
            read_run(url)
        assert peek(url).epoch == 0
        for epoch in run.epochs(3):
            run.report(val_loss=1 / epoch)
            if epoch == 2:
                break
        rests(run)
        pauses = []

        def pause(seconds):
            pauses.append(seconds)
            raise KeyboardInterrupt

        monkeypatch.setattr("time.sleep", pause)
        stopctl("watch", url)
        assert pauses == [30.0], "a mirror is not looked at every second"
        standing = read_run(url).standing
        assert (standing.state, standing.epoch) == ("running", 2)
        assert standing.reason == f"process {os.getpid()} on localhost"
        monkeypatch.setattr("os.uname", lambda: os.uname_result(("Linux", "elsewhere", "", "", "")))
        assert read_run(url).standing.reason.startswith(f"process {os.getpid()} on ")
        monkeypatch.undo()
    assert read_run(url).standing.state == "interrupted"


def test_where_nothing_is_mirrored_there_is_no_run(tmp_path):
    url = f"file://{tmp_path}/nothing"
    with pytest.raises(NotARunError, match=f"{url} is no run: nothing is mirrored"):
        read_run(url)
    assert peek(url).epoch == 0
    assert mirrors_at(url) == []
    with pytest.raises(SettingError, match="three slashes"):
        peek("file://mnt/disk")


def test_a_forked_child_leaves_what_its_parent_reads(mirror):
    reader = open_run(mirror)
    child = os.fork()
    if not child:
        del reader
        os._exit(0)
    os.waitpid(child, 0)
    assert reader.load(reader.list().good[0])[0]["w"] == 1.0


def test_the_commands_read_mirrors(mirror, tmp_path, stopctl):
    second = f"file://{tmp_path}/disk/more/second"
    train(tmp_path / "second", second, 2)
    folder = f"file://{tmp_path}/disk"
    assert runs_at([Path(folder)]) == [Path(mirror), Path(second)]

    found = json.loads(stopctl("ls", folder, "--json")[1])
    assert [run["path"] for run in found["runs"]] == [mirror, second]
    text = stopctl("ls", folder)[1]
    assert "first " in text
    assert "more/second" in text
    one = json.loads(stopctl("show", mirror, "--json")[1])
    assert (one["path"], one["state"], one["epoch"], len(one["checkpoint_list"])) == (
        mirror,
        "finished",
        4,
        4,
    )
    assert "first  finished" in stopctl("show", mirror)[1]
    assert len(json.loads(stopctl("show", folder, "--json")[1])["runs"]) == 2
    assert "new best" in stopctl("explain", mirror, "--epoch", "2")[1]
    assert "4 good" in stopctl("verify", mirror)[1]
    assert "first  finished" in stopctl("watch", mirror)[1]
    stopctl("report", mirror, second, "-o", tmp_path / "page.html")
    assert '"second"' in (tmp_path / "page.html").read_text()
    none = f"file://{tmp_path}/disk/none"
    assert stopctl.refused("show", none) == f"{none} is no run: nothing is mirrored there"
    assert f"no runs in or below {none}" in stopctl("ls", none)[1]
    assert "lives in a local directory" in stopctl.refused("pin", mirror, "epoch-0001")

    [data] = (tmp_path / "disk" / "first" / "data").glob("epoch-0003*/*/state.json")
    data.write_bytes(data.read_bytes()[:-1] + b" ")
    code, broken, _ = stopctl("verify", mirror)
    assert code == 1
    assert "damaged  epoch-0003" in broken
    assert "3 good" in broken


def test_an_object_store_is_read_as_a_disk_is(s3_server, tmp_path, monkeypatch, stopctl):
    np = pytest.importorskip("numpy")
    url = "s3://runs/reader/first"
    state = {"w": np.zeros(3)}
    with Run(tmp_path / "run", state=state, stop=None, mirror=url, mirror_options=options(s3_server)) as run:
        for epoch in run.epochs(2):
            state["w"] = np.full(3, float(epoch))
            run.report(val_loss=1 / epoch)
    for name, value in {
        "AWS_ENDPOINT_URL": s3_server,
        "AWS_ACCESS_KEY_ID": "AKIDtesting",
        "AWS_SECRET_ACCESS_KEY": "of-the-environment",
    }.items():
        monkeypatch.setenv(name, value)
    assert choose(url)[1]["w"].data == np.full(3, 2.0).tobytes()
    export(url, tmp_path / "weights.safetensors")
    assert load_exported(tmp_path / "weights.safetensors")["w"].tolist() == [2.0] * 3
    assert json.loads(stopctl("ls", "s3://runs/reader", "--json")[1])["runs"][0]["path"] == url
    assert "2 good" in stopctl("verify", url)[1]
    assert "epoch 2" in stopctl("export", url, "--to", tmp_path / "more.safetensors")[1]

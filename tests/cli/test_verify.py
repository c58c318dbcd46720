from __future__ import annotations

import json

from support.ran import files_of, ran


def flip(path):
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)


def test_a_good_run_is_good(tmp_path, stopctl):
    path = ran(tmp_path / "run")
    before = files_of(path)
    code, out, _ = stopctl("verify", path)
    assert (code, files_of(path)) == (0, before)
    assert out.splitlines()[0] == "good     epoch-0003-step-000000030-w0001"
    assert "3 good, " in out


def test_one_flipped_bit_is_named_and_ends_with_1(tmp_path, stopctl):
    path = ran(tmp_path / "run")
    flip(next(path.glob("checkpoints/epoch-0003*/state.json")))
    next(path.glob("checkpoints/epoch-0004*/state.json")).unlink()
    code, out, _ = stopctl("verify", path)
    assert code == 1
    assert (
        "damaged  epoch-0003-step-000000030-w0001: state.json: what was read back is not what was written"
        in out
    )
    assert "damaged  epoch-0004-step-000000040-w0001: state.json: No such file or directory" in out
    assert "1 good, " in out
    assert "; 2 damaged" in out
    code, out, _ = stopctl("verify", path, "--json")
    told = json.loads(out)
    assert (code, told["good"]) == (1, ["epoch-0006-step-000000060-w0001"])
    assert {one["name"][:10] for one in told["damaged"]} == {"epoch-0003", "epoch-0004"}


def test_folders_are_searched_and_go_on_where_a_run_cannot_be_read(tmp_path, stopctl):
    for name in ("a", "b", "c"):
        ran(tmp_path / "runs" / name)
    code, out, err = stopctl("verify", tmp_path / "runs")
    assert (code, err, out.count("3 good, ")) == (0, "", 3)
    assert out.splitlines()[0] == f"{tmp_path / 'runs' / 'a'}:"
    (tmp_path / "runs" / "b" / "run.json").write_text("{")
    flip(next((tmp_path / "runs" / "c").glob("checkpoints/epoch-0003*/state.json")))
    code, out, err = stopctl("verify", tmp_path / "runs")
    (line,) = err.splitlines()
    assert (code, line.startswith("left out: "), "b/run.json" in line) == (1, True, True)
    assert out.splitlines()[-1].endswith("; 1 damaged")
    code, out, _ = stopctl("verify", tmp_path / "runs", "--json")
    told = json.loads(out)
    assert [len(one["good"]) for one in told["runs"]] == [3, 2]
    assert told["left_out"] == [line]

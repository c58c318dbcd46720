"""Directories that somebody else made: a clear error of ours or a right answer, nothing run, nothing absurd.

Every byte of a run may be hostile. What is hashed is signed anew, so that the checks behind the hash are met.
"""

from __future__ import annotations

import functools
import hashlib
import json
import os
import shutil
import tempfile
import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from stopctl import OnBest, Patience, Run, StopctlError
from stopctl.core.errors import DamagedError, TreeError
from stopctl.runs.choose import choose
from stopctl.store import CheckpointInfo, Reader, Sharded, Store, draft, manifest, partfile, safetensors
from stopctl.store.files import FILES
from stopctl.store.journal import Lines, newest_first, parse
from stopctl.store.tree import unflatten
from support import sharded
from support.faults.counts import count

Save = Callable[..., CheckpointInfo]

TIMES = int(os.environ.get("STOPCTL_FUZZ", "1"))
"""How many times as many examples as usual."""
often = settings(max_examples=200 * TIMES, deadline=None, suppress_health_check=list(HealthCheck))
seldom = settings(max_examples=50 * TIMES, deadline=None, suppress_health_check=list(HealthCheck))

plain = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8)
plain |= st.sampled_from(
    [10**400, -1, 2**63, 1e308, "NaN", "../x", "a\0b", [], {}, [[]], {"": {}}, "x" * 3000]
)
values = st.recursive(
    plain, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3)
)
DEEP = b"[" * 100_000


@functools.cache
def original() -> Path:
    """A run of three checkpoints, made once."""
    root = Path(tempfile.mkdtemp(prefix="stopctl-untrusted-"))
    with Run(root / "run", **with_()) as run:
        for epoch in run.epochs(3):
            run.report(val_loss=1.0 / epoch)
    return root / "run"


@pytest.fixture(scope="module", autouse=True)
def _cleared() -> Iterator[None]:
    yield
    shutil.rmtree(original().parent)
    original.cache_clear()
    team.cache_clear()


def with_() -> dict[str, Any]:
    return {
        "state": {"w": {"a": [1, 2.5, None]}, "n": 0},
        "keep": None,
        "stop": Patience(9, min_delta=0.1),
        "save": OnBest(),
        "durability": "process",
    }


@contextmanager
def copied() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="stopctl-untrusted-") as root:
        run = Path(root, "run")
        shutil.copytree(original(), run, symlinks=True)
        yield run


def looked_at(run: Path) -> None:
    """All that a user does with a directory: each works or raises an error of ours; little is allocated."""
    tracemalloc.start()
    for look in (
        lambda: choose(run, "best"),
        lambda: choose(run, "latest"),
        lambda: Run(run, resume="require", **with_()).open().close(),
        lambda: Run(run, **with_()).open().close(),
        lambda: Run(run.parent / "child", start_from_run=run, **with_()).open().close(),
    ):
        with suppress(StopctlError):
            look()
    assert tracemalloc.get_traced_memory()[1] < 50 * 10**6
    tracemalloc.stop()


def sign(checkpoint: Path, **changes: Any) -> None:
    """Write a manifest whose hashes are right, whatever else is in it."""
    body = json.loads((original() / "checkpoints" / checkpoint.name / "manifest.json").read_bytes()) | changes
    for name in ("state.json", "state.safetensors"):
        if "files" not in changes:
            data = (checkpoint / name).read_bytes()
            body["files"][name] = {"size": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    body.pop("sha256", None)
    text = json.dumps(body, sort_keys=True, separators=(",", ":"))
    body["sha256"] = hashlib.sha256(text.encode()).hexdigest()
    (checkpoint / "manifest.json").write_text(json.dumps(body, sort_keys=True, separators=(",", ":")))


def newest(run: Path) -> Path:
    return sorted((run / "checkpoints").iterdir())[-1]


@st.composite
def mutated(draw: Any, value: Any) -> Any:
    """A JSON value with one or two of its parts replaced, removed or doubled."""
    for _ in range(draw(st.integers(1, 2))):
        value = _mutate(draw, json.loads(json.dumps(value)))
    return value


def _mutate(draw: Any, value: Any) -> Any:
    if isinstance(value, dict) and value and draw(st.integers(0, 9)):
        key = draw(st.sampled_from(sorted(value)))
        what = draw(st.integers(0, 9))
        if what == 0:
            del value[key]
        elif what == 1:
            value[draw(st.text(max_size=8))] = value[key]
        else:
            value[key] = _mutate(draw, value[key])
        return value
    if isinstance(value, list) and value and draw(st.integers(0, 9)):
        at = draw(st.integers(0, len(value) - 1))
        value[at] = _mutate(draw, value[at])
        return value
    return draw(values)


def harmed(data: bytes) -> st.SearchStrategy[bytes]:
    """Bytes flipped, cut out, put in, or anything at all."""
    flip = st.tuples(st.integers(0, max(0, len(data) - 1)), st.integers(1, 255)).map(
        lambda at: data[: at[0]] + bytes([data[at[0]] ^ at[1]]) + data[at[0] + 1 :]
    )
    places = st.integers(0, len(data))
    spliced = st.tuples(
        places, places, st.binary(max_size=9) | st.sampled_from([DEEP, b"9" * 5000, b"\xff"])
    ).map(lambda cut: data[: min(cut[:2])] + cut[2] + data[max(cut[:2]) :])
    return (
        flip
        | spliced
        | st.binary(max_size=200)
        | st.sampled_from([b"", DEEP, b"null", b"{}", b"[]", b"\0" * 99])
    )


@often
@given(data=st.data())
def test_fuzzed_manifests(data: st.DataObject) -> None:
    text = (newest(original()) / "manifest.json").read_bytes()
    harm = data.draw(harmed(text))
    count("manifests fuzzed", 2)
    if harm != text:
        with pytest.raises(DamagedError):
            manifest.parse(harm, Path("/"))
    body = json.loads(text)
    signed = data.draw(mutated(body))
    if isinstance(signed, dict):
        signed.pop("sha256", None)
        canonical = {"sort_keys": True, "separators": (",", ":")}
        said = hashlib.sha256(json.dumps(signed, **canonical).encode()).hexdigest()  # type: ignore[arg-type]
        signed["sha256"] = said
        try:
            info, facts = manifest.parse(json.dumps(signed, **canonical).encode(), Path("/run"))  # type: ignore[arg-type]
        except DamagedError:
            return
        assert manifest.NAME.fullmatch(info.name)
        assert info.path.parent == Path("/run")
        assert set(facts) - {"frozen.safetensors"} == {"state.json", "state.safetensors"}


@often
@given(data=st.data())
def test_fuzzed_safetensors_headers(data: st.DataObject) -> None:
    from support.trees import leaf

    parts = safetensors.encode({"a": leaf(b"12345678"), "b": leaf(b"1234"), "c": leaf(b"")})
    whole = b"".join(bytes(part) for part in parts)
    length = int.from_bytes(whole[:8], "little")
    header = data.draw(mutated(json.loads(whole[8 : 8 + length])))
    text = json.dumps(header).encode() + data.draw(st.binary(max_size=3))
    for file in (data.draw(harmed(whole)), len(text).to_bytes(8, "little") + text + whole[8 + length :]):
        try:
            found = safetensors.decode(file)
        except DamagedError:
            continue
        assert sum(len(leaf.data) for leaf in found.values()) <= len(file)


@often
@given(data=st.data())
def test_fuzzed_skeletons(data: st.DataObject) -> None:
    state = json.loads((newest(original()) / "state.json").read_bytes())
    try:
        found = unflatten(data.draw(mutated(state["components"])), {})
    except DamagedError:
        return
    assert isinstance(found, dict)


@functools.cache
def team() -> Path:
    """A run of one checkpoint by three ranks, made once."""
    store = Store.lock(original().parent / "team", durability="process")
    store.begin({})
    sharded.commit(store, 3, 3)
    store.close()
    return store.path


@often
@given(data=st.data())
def test_fuzzed_tellings_of_parts(data: st.DataObject) -> None:
    checkpoint = newest(team())
    text = (checkpoint / "parts.json").read_bytes()
    part = (checkpoint / "part-00001.json").read_bytes()
    arrays = partfile.parse_parts(text).arrays
    changed = json.dumps(data.draw(mutated(json.loads(text)))).encode()
    with suppress(DamagedError):
        found = partfile.parse_parts(data.draw(st.just(changed) | harmed(text)))
        assert all(partfile.PART.fullmatch(name) for name in found.files)
        assert all(rank < found.ranks for rank in found.having())
    changed = json.dumps(data.draw(mutated(json.loads(part)))).encode()
    with suppress(DamagedError):
        one = partfile.parse_part(data.draw(st.just(changed) | harmed(part)), 1, arrays)
        assert one.pieces.keys() <= arrays.keys()
        assert all(len(piece.shape) == len(piece.offsets) for of in one.pieces.values() for piece in of)


@seldom
@given(data=st.data())
def test_a_teams_checkpoint_whose_parts_are_hostile_and_signed(data: st.DataObject) -> None:
    """All is right but one file's content: it is damaged, or what it says is what is loaded."""
    with tempfile.TemporaryDirectory(prefix="stopctl-untrusted-") as root:
        run = Path(root, "run")
        shutil.copytree(team(), run)
        known = Reader(run).list().good[0]
        paths = [path for path in sharded.part_files(known.path) if path.suffix == ".json"]
        path = data.draw(st.sampled_from(paths))
        text = path.read_bytes()
        changed = json.dumps(data.draw(mutated(json.loads(text)))).encode()
        path.write_bytes(data.draw(st.just(changed) | st.just(changed) | harmed(text)))
        sharded.resign(known.path)
        count("manifests fuzzed")
        tracemalloc.start()
        reader = Reader(run)
        reader.list()
        for rank in (None, 0, 1, 7):
            with suppress(DamagedError):
                for array in _arrays(reader.load(known, rank=rank)[0]):
                    for piece in array.pieces:
                        assert len(piece.data) < len(text) * 1000
        assert tracemalloc.get_traced_memory()[1] < 50 * 10**6
        tracemalloc.stop()


def _arrays(tree: Any) -> Iterator[Sharded]:
    if isinstance(tree, Sharded):
        yield tree
    for value in tree.values() if isinstance(tree, dict) else tree if isinstance(tree, list | tuple) else ():
        yield from _arrays(value)


@pytest.mark.parametrize("kind", ["outside", "pipe", "directory", "loop"])
@pytest.mark.parametrize("name", ["parts.json", "part-00001.json", "part-00001.safetensors"])
def test_things_in_the_place_of_parts_are_not_followed(tmp_path: Path, name: str, kind: str) -> None:
    run = tmp_path / "run"
    shutil.copytree(team(), run)
    info = Reader(run).list().good[0]
    place = info.path / name
    shutil.move(place, tmp_path / "secret")
    {
        "outside": lambda: place.symlink_to(tmp_path / "secret"),
        "pipe": lambda: os.mkfifo(place),
        "directory": place.mkdir,
        "loop": lambda: place.symlink_to(name),
    }[kind]()
    assert [damage.name for damage in Reader(run).list().damaged] == [info.name]
    for rank in (None, 1):
        with pytest.raises(DamagedError, match=name):
            Reader(run).load(info, rank=rank)
    assert (tmp_path / "secret").read_bytes()


@often
@given(data=st.data())
def test_fuzzed_journals(data: st.DataObject, tmp_path: Path) -> None:
    text = (original() / "journal.jsonl").read_bytes()
    path = tmp_path / "journal.jsonl"
    path.write_bytes(data.draw(harmed(text)))
    oldest = list(Lines(FILES, path, parse))
    assert all(type(line) is dict for line in oldest)
    assert list(newest_first(FILES, path)) == oldest[::-1]


@seldom
@given(data=st.data())
def test_a_run_whose_newest_state_is_hostile(data: st.DataObject) -> None:
    with copied() as run:
        state = json.loads((newest(run) / "state.json").read_bytes())
        changed = data.draw(
            mutated(state) | mutated(state["state"]).map(lambda inner: state | {"state": inner})
        )
        text = json.dumps(changed).encode()
        (newest(run) / "state.json").write_bytes(data.draw(st.just(text) | harmed(text)))
        sign(newest(run))
        looked_at(run)


@pytest.mark.parametrize(
    "wrong",
    [
        {"reports": 2**63},
        {"reports": 10**400},
        {"best": "NaN"},
        {"seconds": 1e300},
        {"epoch": 10**15},
        {"planned": 0},
        {"lr_drops": {"range": [1, 10**400, 1]}},
        {"memories": [{"policy": "Patience", "goal": "Minimize('val_loss')", "ordinal": 0, "memory": [[]]}]},
    ],
)
def test_a_signed_state_that_no_run_has_is_damage_and_the_one_before_is_used(wrong: dict[str, Any]) -> None:
    with copied() as run:
        last = newest(run)
        saved = json.loads((last / "state.json").read_bytes())
        (last / "state.json").write_text(json.dumps(saved | {"state": saved["state"] | wrong}))
        sign(last)
        with Run(run, **with_()) as opened:
            assert opened.resumed is not None
            assert opened.resumed.epoch == 2
        assert (last.parent / f".damaged-{last.name}").is_dir()


@seldom
@given(data=st.data())
def test_a_run_whose_manifest_is_hostile_and_signed(data: st.DataObject) -> None:
    with copied() as run:
        body = json.loads((newest(run) / "manifest.json").read_bytes())
        changed = data.draw(mutated(body))
        sign(newest(run), **(changed if isinstance(changed, dict) else {"files": changed}))
        count("manifests fuzzed")
        looked_at(run)


@seldom
@given(data=st.data())
def test_a_run_whose_run_json_is_hostile(data: st.DataObject) -> None:
    with copied() as run:
        text = (run / "run.json").read_bytes()
        changed = json.dumps(data.draw(mutated(json.loads(text)))).encode()
        (run / "run.json").write_bytes(data.draw(st.just(changed) | st.just(changed) | harmed(text)))
        looked_at(run)


@seldom
@given(data=st.data())
def test_a_run_whose_journal_is_hostile(data: st.DataObject) -> None:
    with copied() as run:
        text = (run / "journal.jsonl").read_bytes()
        lines = [json.dumps(data.draw(mutated(json.loads(line)))).encode() for line in text.splitlines()]
        (run / "journal.jsonl").write_bytes(data.draw(st.just(b"\n".join(lines)) | harmed(text)))
        if data.draw(st.booleans()):
            shutil.rmtree(run / "checkpoints")
        looked_at(run)


@seldom
@given(data=st.data())
def test_a_run_whose_lock_is_hostile(data: st.DataObject, tmp_path: Path) -> None:
    (tmp_path / "run.lock").write_bytes(data.draw(harmed(b'{"host":"a","pid":1,"started":"2026"}\n')))
    Store.lock(tmp_path).close()


@pytest.mark.parametrize(
    "name",
    [
        "checkpoints",
        "journal.jsonl",
        "run.json",
        "run.lock",
        "pins",
        "checkpoint",
        "trash",
        "unfinished",
        "pin",
    ],
)
@pytest.mark.parametrize("kind", ["outside", "dangling", "loop", "pipe", "directory", "file"])
def test_things_in_the_place_of_ours_change_nothing_outside(tmp_path: Path, name: str, kind: str) -> None:
    secret = tmp_path / "secret"
    secret.mkdir()
    for file in ("state.json", "manifest.json", "secret.txt"):
        (secret / file).write_text("precious")
    run = tmp_path / "run"
    shutil.copytree(original(), run)
    last = newest(run).name
    place = run / {
        "checkpoint": f"checkpoints/{last[:-1]}7",
        "trash": "checkpoints/.trash-x",
        "unfinished": f"checkpoints/.tmp-{last}-01234567",
        "pin": f"pins/{last}.pinned",
    }.get(name, name)
    place.parent.mkdir(exist_ok=True)
    if place.is_dir():
        shutil.rmtree(place)
    place.unlink(missing_ok=True)
    {
        "outside": lambda: place.symlink_to(secret),
        "dangling": lambda: place.symlink_to(tmp_path / "none"),
        "loop": lambda: place.symlink_to(place.name),
        "pipe": lambda: os.mkfifo(place),
        "directory": place.mkdir,
        "file": lambda: place.write_text("x"),
    }[kind]()
    looked_at(run)
    for file in ("state.json", "manifest.json", "secret.txt"):
        assert (secret / file).read_text() == "precious"
    assert not (tmp_path / "none").exists()


def test_absurd_numbers_and_lengths_are_refused_in_few_bytes(tmp_path: Path) -> None:
    for place, text in {
        "run.json": b'{"format":1,"writer":' + b"9" * 10_000 + b"}",
        "journal.jsonl": b'{"event":"saved","name":"' + b"x" * 10**6 + b'","seconds":1e999}\n' + DEEP,
    }.items():
        run = tmp_path / place
        shutil.copytree(original(), run)
        (run / place).write_bytes(text)
        looked_at(run)
    run = tmp_path / "sparse"
    shutil.copytree(original(), run)
    with (run / "run.json").open("ab") as file:
        file.truncate(10**12)
    with pytest.raises(DamagedError, match=r"run\.json: 1000000000000 bytes, more than"):
        Reader(run)
    looked_at(run)


def test_a_writer_number_at_its_limit_is_told(tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(original(), run)
    meta = json.loads((run / "run.json").read_text())
    for writer in (10**18 - 1, 2**63 - 1):
        (run / "run.json").write_text(json.dumps(meta | {"writer": writer}))
        before = (run / "run.json").read_bytes()
        looked_at(run)
        with (
            pytest.raises(DamagedError, match=f"the writer's number {writer}, in run.json or"),
            Run(run, **with_()),
        ):
            pass
        assert (run / "run.json").read_bytes() == before


def test_a_state_that_is_larger_than_any_is_damage_before_it_is_read(
    tmp_path: Path, monkeypatch: Any
) -> None:
    run = tmp_path / "run"
    shutil.copytree(original(), run)
    with (newest(run) / "state.json").open("r+b") as file:
        file.truncate(10 << 30)  # sparse
    files = json.loads((newest(run) / "manifest.json").read_bytes())["files"]
    sign(newest(run), files={**files, "state.json": {**files["state.json"], "size": 10 << 30}})
    with Run(run, **with_()) as opened:
        assert opened.resumed.epoch == 2
    monkeypatch.setattr(draft, "STATE_LIMIT", 100)
    with Run(tmp_path / "other", **with_()) as opened:
        for _ in opened.epochs(1):
            with pytest.raises(TreeError, match="put numbers into arrays"):
                opened.report(val_loss=1.0)
            break


def test_a_checkpoint_that_tells_of_tensors_it_does_not_have(tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(original(), run)
    header = b'{"w/0":{"dtype":"F64","shape":[1000000000000],"data_offsets":[0,8000000000000]}}'
    (newest(run) / "state.safetensors").write_bytes(len(header).to_bytes(8, "little") + header)
    sign(newest(run))
    with pytest.raises(DamagedError, match="which does not fit its shape"):
        Reader(run).load(Reader(run).list().good[-1])
    looked_at(run)


def test_the_fuzz_meets_what_is_behind_the_hash(tmp_path: Path) -> None:
    """Signing works: an unharmed copy is good, and a signed change is read as it says."""
    run = tmp_path / "run"
    shutil.copytree(original(), run)
    sign(newest(run), seconds=7.0)
    assert [info.seconds for info in Reader(run).list().good][-1] == 7.0
    with Run(run, **with_()) as opened:
        assert opened.resumed is not None
        assert opened.resumed.epoch == 3

"""What does not change is written twice and then linked; whatever happens, a load gives what was saved."""

from __future__ import annotations

import errno
import hashlib
import itertools
import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from stopctl.core.errors import DamagedError, SaveError
from stopctl.store import Files, Leaf, Reader, Store, frozen
from stopctl.store.frozen import Unchanged
from support.faults.disk import write
from support.faults.models import Posix
from support.recorder import Recorder, failing

FROZEN = "frozen.safetensors"


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(frozen, "LEAF", 64)
    monkeypatch.setattr(frozen, "TOTAL", 128)


def flat(data: Any) -> Leaf:
    return Leaf("U8", (len(data),), data)


def tuning(number: int) -> dict[str, Any]:
    """A frozen base of two arrays, and a head that is another one each time."""
    base = [flat(bytes([layer]) * 500) for layer in (1, 2)]
    return {"model": {"base": base, "head": flat(bytes([number]) * 100)}}


def save(store: Store, number: int, components: Any = None, **more: Any) -> Path:
    fields = {"state": {"number": number}, "epoch": number, "step": number, "seconds": 0.0, "value": None}
    return store.commit(components or tuning(number), **(fields | more)).path


def inode(path: Path) -> int:
    return (path / FROZEN).stat().st_ino


def all_load(reader: Reader) -> set[int]:
    """The numbers that are there, each whole."""
    listing = reader.list()
    assert listing.damaged == ()
    for info in listing.good:
        components, state = reader.load(info)
        assert state == {"number": info.epoch}
        expected = tuning(info.epoch)["model"]
        model = components["model"]
        assert bytes(model["head"].data) == expected["head"].data
        assert [bytes(leaf.data) for leaf in model["base"]] == [leaf.data for leaf in expected["base"]]
    return {info.epoch for info in listing.good}


def test_two_copies_take_turns(store: Store) -> None:
    paths = [save(store, number) for number in range(1, 8)]
    assert not (paths[0] / FROZEN).exists()  # nothing is known of the first
    inodes = [inode(path) for path in paths[1:]]
    assert len(set(inodes)) == 2
    assert all(one != other for one, other in itertools.pairwise(inodes))
    assert all_load(store) == set(range(1, 8))


def test_only_what_changes_is_written(run: Path) -> None:
    files = Recorder()
    store = Store.lock(run, files=files)
    store.begin({})
    written = []
    for number in range(1, 6):
        files.clear()
        path = save(store, number)
        written.append(sum(len(op.data) for op in files.ops if op.name == "write"))
    store.close()
    assert min(written[:3]) > 1100
    assert max(written[3:]) < 1100
    info = Reader(run).list().good[-1]
    assert info.frozen == (path / FROZEN).stat().st_size > 1000
    assert info.bytes == sum(file.stat().st_size for file in path.iterdir())


def test_a_link_comes_instead_of_a_write_and_is_on_the_disk_with_its_directory(run: Path) -> None:
    files = Recorder()
    store = Store.lock(run, files=files)
    store.begin({})
    for number in (1, 2, 3):
        save(store, number)
    files.clear()
    save(store, 4)
    store.close()
    temporary = "checkpoints/.tmp-epoch-0004-step-000000004-w0001-*"
    others = [
        [f"{op} {temporary}/{name}" for op in ("create", "write", "sync")]
        for name in ("state.safetensors", "state.json", "manifest.json")
    ]
    linked = f"link checkpoints/epoch-0002-step-000000002-w0001/{FROZEN} {temporary}/{FROZEN}"
    assert files.told(run)[:-2] == [
        f"mkdir {temporary}",
        *others[0],
        *others[1],
        linked,
        *others[2],
        f"sync_directory {temporary}",
        f"rename {temporary} checkpoints/epoch-0004-step-000000004-w0001",
        "sync_directory checkpoints",
    ]


def test_a_run_that_keeps_one_checkpoint_links_to_it(store: Store) -> None:
    inodes = []
    for number in range(1, 6):
        inodes.append(save(store, number))
        if number > 1:
            store.delete([inodes[-2].name], guarded=())
    assert inodes[-1].exists()
    last = inode(inodes[-1])
    save(store, 6)
    assert inode(inodes[-1]) == last == inode(store.path / "checkpoints" / "epoch-0006-step-000000006-w0001")
    assert all_load(store) == {5, 6}


@pytest.mark.parametrize("gone", [1, 3, 5])
def test_whichever_holder_goes_the_others_stay_whole(store: Store, gone: int) -> None:
    paths = [save(store, number) for number in range(1, 8)]
    store.delete([paths[gone].name], guarded=())
    assert all_load(store) == set(range(1, 8)) - {gone + 1}
    store.delete([path.name for path in paths[:-1] if path.exists()], guarded=())
    assert all_load(store) == {7}
    save(store, 8)
    save(store, 9)
    assert all_load(store) == {7, 8, 9}


def test_rot_in_a_shared_file_takes_every_other_checkpoint_and_is_not_linked_again(store: Store) -> None:
    paths = [save(store, number) for number in range(1, 8)]
    rotten = paths[-1] / FROZEN
    data = bytearray(rotten.read_bytes())
    data[-1] ^= 1
    with rotten.open("r+b") as file:  # the same inode
        file.write(data)
    for info in store.list().good:
        if info.epoch in (3, 5, 7):
            with pytest.raises(DamagedError, match=f"{FROZEN}: its SHA-256 is not the one in the manifest"):
                store.load(info)
            store.set_aside(info.name, "rot")
        else:
            store.load(info)
    new = [save(store, number) for number in (8, 9, 10, 11)]
    assert inode(paths[-1].parent / f".damaged-{paths[-1].name}") not in [inode(path) for path in new]
    assert all_load(store) == {1, 2, 4, 6, 8, 9, 10, 11}


def test_after_one_checkpoint_was_found_damaged_no_other_is_linked_to(store: Store) -> None:
    paths = [save(store, number) for number in range(1, 8)]
    store.set_aside(paths[-1].name, "rot")  # 3 and 5 have the same file, and nobody has looked at them yet
    assert inode(save(store, 8)) not in [inode(path) for path in paths[1:-1]]


def test_a_file_that_was_touched_since_is_written_anew(store: Store) -> None:
    paths = [save(store, number) for number in (1, 2, 3)]
    os.utime(paths[1] / FROZEN, ns=(0, 0))
    assert inode(save(store, 4)) not in (inode(paths[1]), inode(paths[2]))
    assert all_load(store) == {1, 2, 3, 4}


def test_verified_writes_read_a_linked_file_too_and_the_next_save_is_good(run: Path) -> None:
    store = Store.lock(run, verify_writes=True)
    store.begin({})
    paths = [save(store, number) for number in (1, 2, 3)]
    stamp = (paths[1] / FROZEN).stat()
    with (paths[1] / FROZEN).open("r+b") as file:
        file.write(b"\xff")
    os.utime(paths[1] / FROZEN, ns=(stamp.st_atime_ns, stamp.st_mtime_ns))
    with pytest.raises(SaveError, match="what was read back is not what was written"):
        save(store, 4)
    save(store, 4)
    save(store, 5)
    assert [info.epoch for info in store.list().good] == [1, 2, 3, 4, 5]
    for info in store.list().good[2:]:
        store.load(info)
    store.close()


@pytest.mark.parametrize("code", [errno.EPERM, errno.EXDEV, errno.EMLINK, errno.ENOTSUP, errno.ENOENT])
def test_where_there_are_no_links_all_is_written_and_soon_nothing_is_tried(run: Path, code: int) -> None:
    class Linkless(Files):
        tried = 0

        def link(self, source: Path, target: Path) -> None:
            self.tried += 1
            raise OSError(code, os.strerror(code), str(source))

    files = Linkless()
    store = Store.lock(run, files=files)
    store.begin({})
    paths = [save(store, number) for number in range(1, 10)]
    assert files.tried == frozen.TRIES
    assert len({inode(path) for path in paths if (path / FROZEN).exists()}) == 4
    assert not (paths[-1] / FROZEN).exists()
    assert all_load(store) == set(range(1, 10))
    store.close()


def test_another_error_of_the_link_is_an_error_of_the_save(run: Path) -> None:
    files = Recorder()
    store = Store.lock(run, files=files)
    store.begin({})
    for number in (1, 2, 3):
        save(store, number)

    def hook(index: int, op: Any) -> None:
        if op.name == "link":
            raise OSError(errno.EIO, "Input/output error", str(op.paths[0]))

    files.hook = hook
    with pytest.raises(SaveError, match="Input/output error"):
        save(store, 4)
    save(store, 4)  # written in full: nothing is linked after a failure
    assert all_load(store) == {1, 2, 3, 4}
    store.close()


def test_no_room_for_what_could_not_be_linked_is_told_before_it_is_written(run: Path) -> None:
    class Full(Files):
        full = False

        def link(self, source: Path, target: Path) -> None:
            self.full = True
            raise OSError(errno.EXDEV, "no", str(source))

        def free(self, path: Path) -> int | None:
            return 0 if self.full else None

    store = Store.lock(run, files=Full())
    store.begin({})
    for number in (1, 2, 3):
        save(store, number)
    with pytest.raises(SaveError, match=f"saving {FROZEN} needs"):
        save(store, 4)
    assert all_load(store) == {1, 2, 3}
    assert len(list((run / "checkpoints").iterdir())) == 3
    store.close()


def test_every_failing_operation_leaves_whole_checkpoints_and_a_writer_that_goes_on(tmp_path: Path) -> None:
    def life(root: Path, at: int | None) -> int:
        files = Recorder()
        store = Store.lock(root, files=files)
        store.begin({})
        for number in (1, 2, 3):
            save(store, number)
        files.clear()
        files.hook = None if at is None else failing(at, errno.EIO)
        try:
            save(store, 4)
            there = {1, 2, 3, 4}
        except SaveError:
            there = {1, 2, 3}
        count = len(files.ops)
        files.hook = None
        assert all_load(store) == there
        save(store, 5)
        save(store, 6)
        assert all_load(store) == there | {5, 6}
        store.close()
        return count

    total = life(tmp_path / "all", None)
    assert total > 20
    for at in range(total):
        life(tmp_path / str(at), at)


def test_a_power_cut_at_any_operation_loses_nothing_that_was_reported(tmp_path: Path) -> None:
    root = tmp_path / "real"
    root.mkdir()
    files = Recorder()
    store = Store.lock(root / "run", files=files)
    store.begin({})
    promised: list[tuple[int, set[int]]] = [(0, set())]
    for number in (1, 2, 3, 4, 5):
        path = save(store, number)
        promised.append((len(files.ops), set(range(1, number + 1))))
        if number == 4:
            gone = path.parent / "epoch-0002-step-000000002-w0001"  # it holds what 4 links
            promised[-1] = (len(files.ops), {1, 3, 4})
            store.delete([gone.name], guarded=())
    promised[-1] = (promised[-1][0], {1, 3, 4, 5})
    store.close()
    disk = Posix(root)
    seen = set()
    start = next(i for i, op in enumerate(files.ops) if op.name == "link")
    for count, op in enumerate(files.ops, 1):
        disk.do([op])
        if count <= start or not Recorder.changes(op):
            continue
        must = [numbers for index, numbers in promised if index <= count][-1]
        for tree in disk.states():
            key = (tuple(sorted(tree.items())), frozenset(must))
            if key not in seen:
                seen.add(key)
                write(tree, tmp_path / "cut")
                assert must <= all_load(Reader(tmp_path / "cut/run"))
                shutil.rmtree(tmp_path / "cut")
    assert len(seen) > 15


def signed(path: Path, change: Any) -> None:
    """Change the manifest's files and make its hashes right."""
    body = json.loads((path / "manifest.json").read_bytes())
    del body["sha256"]
    change(body["files"])
    for name, fact in body["files"].items():
        if (path / name).exists():
            data = (path / name).read_bytes()
            fact.update(size=len(data), sha256=hashlib.sha256(data).hexdigest())
    text = json.dumps(body, sort_keys=True, separators=(",", ":"))
    body["sha256"] = hashlib.sha256(text.encode()).hexdigest()
    (path / "manifest.json").write_text(json.dumps(body, sort_keys=True, separators=(",", ":")))


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (lambda files: files.update({"more.safetensors": files[FROZEN]}), "not the fields of a manifest"),
        (lambda files: files.update({"state.safetensors.zst": files[FROZEN]}), "not the fields"),
        (
            lambda files: files.update({"state.safetensors.zst": files.pop("state.safetensors")}),
            "unpacked is wrong: None",
        ),
        (lambda files: files.pop("state.safetensors"), "not the fields of a manifest"),
        (lambda files: files.update({"../frozen.safetensors": files.pop(FROZEN)}), "not the fields"),
    ],
)
def test_only_our_files_are_accepted(store: Store, change: Any, why: str) -> None:
    path = [save(store, number) for number in (1, 2)][-1]
    signed(path, change)
    (damage,) = store.list().damaged
    assert why in damage.why


def test_a_checkpoint_without_its_unchanged_arrays_is_damaged(store: Store) -> None:
    path = [save(store, number) for number in (1, 2)][-1]
    info = store.list().good[-1]
    signed(path, lambda files: files.pop(FROZEN))
    with pytest.raises(DamagedError, match="no tensor 'model/base/0'"):
        store.load(info)
    (path / FROZEN).unlink()
    signed(path, lambda files: files.update({FROZEN: {"size": 3, "sha256": "0" * 64}}))
    assert f"{FROZEN}: No such file" in store.list().damaged[0].why


def test_an_array_in_both_files_is_damage(store: Store) -> None:
    path = [save(store, number) for number in (1, 2)][-1]
    shutil.copy(path / FROZEN, path / "state.safetensors")
    signed(path, lambda files: None)
    with pytest.raises(DamagedError, match="'model/base/0' is in two files"):
        store.load(store.list().good[-1])


def test_what_a_link_leads_to_is_never_followed(store: Store, tmp_path: Path) -> None:
    paths = [save(store, number) for number in (1, 2, 3)]
    (tmp_path / "secret").write_bytes((paths[1] / FROZEN).read_bytes())
    (paths[1] / FROZEN).unlink()
    (paths[1] / FROZEN).symlink_to(tmp_path / "secret")
    assert not (save(store, 4) / FROZEN).is_symlink()
    assert [damage.why for damage in store.list().damaged] == [f"{FROZEN}: not a regular file"]


def test_deleting_and_sweeping_know_the_file(run: Path) -> None:
    store = Store.lock(run)
    store.begin({})
    paths = [save(store, number) for number in (1, 2, 3)]
    paths[1].rename(paths[1].parent / f".trash-{paths[1].name}-01234567")
    shutil.copytree(paths[2], paths[2].parent / f".tmp-{paths[2].name}-01234567")
    store.close()
    store = Store.lock(run)
    store.begin({})
    assert all_load(store) == {1, 3}
    assert len(list((run / "checkpoints").iterdir())) == 2
    store.close()


@pytest.fixture
def hashed(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The sizes of what is hashed to be compared."""
    sizes: list[int] = []

    class Spy:
        blake2b = staticmethod(hashlib.blake2b)

        @staticmethod
        def sha256(data: Any) -> Any:
            sizes.append(len(data))
            return hashlib.sha256(data)

    monkeypatch.setattr(frozen, "hashlib", Spy)
    return sizes


def test_where_all_changes_nothing_is_hashed_to_compare(hashed: list[int]) -> None:
    seen = Unchanged()
    for number in range(20):
        leaves = {"a": flat(bytes([number]) * 5000), "b": flat(bytes([number]) * 300), "c": flat(b"same")}
        assert seen.part(leaves) == (leaves, {})
    assert hashed == []


def test_an_array_of_which_few_places_change_is_hashed_ever_more_rarely(hashed: list[int]) -> None:
    seen, data, moved = Unchanged(), bytearray(40_000), 0
    for number in range(1, 200):
        data[40] = number  # between two samples
        moving, still = seen.part({"a": flat(data), "b": flat(bytes(200))})
        moved += "a" in moving
        assert "b" in still or number == 1
    assert hashed.count(40_000) < 16
    assert moved > 190


def test_an_array_that_stops_to_change_is_found(hashed: list[int]) -> None:
    seen = Unchanged()
    found = [bool(seen.part({"a": flat(bytes([min(n, 5)]) * 300)})[1]) for n in range(10)]
    assert found == [False] * 6 + [True] * 4


def test_other_dtypes_and_shapes_are_other_arrays() -> None:
    seen = Unchanged()
    for dtype, shape in (("U8", (256,)), ("I8", (256,)), ("I8", (16, 16)), ("I8", (16, 16))):
        _, still = seen.part({"a": Leaf(dtype, shape, bytes(256))})
    assert set(still) == {"a"}
    assert seen._key["a"][:2] == ("I8", (16, 16))


ACTIONS = st.lists(
    st.tuples(
        st.lists(st.sampled_from("abcd"), max_size=4, unique=True),  # which arrays change,
        st.integers(0, 299),  # where,
        st.sampled_from(["", "", "", "delete", "aside", "fail", "resume", "drop"]),  # and what happens then
    ),
    min_size=1,
    max_size=14,
)


@settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(ACTIONS)
def test_whatever_changes_each_checkpoint_loads_as_it_was_saved(tmp_path: Path, actions: Any) -> None:
    root = tmp_path / "run"
    files = Recorder()
    store = Store.lock(root, files=files)
    store.begin({})
    arrays = {name: bytearray(300) for name in "abcd"}  # written over from save to save, as buffers are
    saved: dict[str, dict[str, bytes]] = {}
    try:
        for number, (moved, place, then) in enumerate(actions, 1):
            for name in moved:
                arrays[name][place] = (arrays[name][place] + 1) % 256
            given_now = {name: flat(data) for name, data in arrays.items() if then != "drop" or name != "d"}
            before = {name: bytes(leaf.data) for name, leaf in given_now.items()}
            if then == "fail":
                files.hook = failing(len(files.ops) + 7, errno.EIO)
            try:
                saved[save(store, number, {"model": given_now}).name] = before
            except SaveError:
                assert then == "fail"
            files.hook = None
            names = sorted(saved)
            if then == "delete" and len(names) > 1:
                store.delete(names[place % (len(names) - 1) :][:1], guarded=())
                del saved[names[place % (len(names) - 1)]]
            elif then == "aside" and names:
                store.set_aside(names[-1], "so")
                del saved[names[-1]]
            elif then == "resume":
                store.close()
                store = Store.lock(root, files=files)
                store.begin({})
        listing = store.list()
        assert listing.damaged == ()
        assert {info.name for info in listing.good} == set(saved)
        for info in listing.good:
            model = store.load(info)[0]["model"]
            assert {name: bytes(leaf.data) for name, leaf in model.items()} == saved[info.name]
    finally:
        store.close()
        shutil.rmtree(root)

"""What a person does to a run whose writer is alive: it goes on, and minds it."""

from __future__ import annotations

from pathlib import Path

from stopctl import Best, Last, Run
from stopctl.store import Reader, pin, unlock, unpin


def epochs(run: Path) -> list[int]:
    return [info.epoch for info in Reader(run).list().good]


def test_a_run_keeps_what_is_pinned_beside_it_and_lets_go_what_is_unpinned(tmp_path: Path) -> None:
    with Run(tmp_path, state={"w": 0}, keep=Last(1) | Best(1), stop=None) as run:
        for epoch in run.epochs(8):
            if epoch == 4:
                pin(tmp_path, "epoch-0003-step-000000000-w0001")
            if epoch == 6:
                assert [info.epoch for info in run.checkpoints if info.pinned] == [2, 3]
                unpin(tmp_path, "kept")
                unpin(tmp_path, "epoch-0003-step-000000000-w0001")
                pin(tmp_path, "kept")
            run.report(val_loss=1.0 - (epoch == 1))
            if epoch == 2:
                run.save("kept")
            assert epochs(tmp_path)[-1] == epoch
        assert epochs(tmp_path) == [1, 2, 8]
    with Run(tmp_path, state={"w": 0}, keep=Last(1), stop=None) as run:
        assert [info.label for info in run.checkpoints if info.pinned] == ["kept"]


def test_a_checkpoint_that_somebody_removed_does_not_stop_the_run(tmp_path: Path) -> None:
    with Run(tmp_path, state={"w": 0}, keep=Last(2), stop=None) as run:
        for epoch in run.epochs(5):
            if epoch == 3:
                gone = Reader(tmp_path).list().good[0]
                gone.path.rename(tmp_path.parent / "elsewhere")
            run.report(val_loss=1.0 / epoch)
    assert epochs(tmp_path) == [4, 5]


def test_what_is_exported_is_what_is_here() -> None:
    import stopctl.store

    assert {"pin", "unpin", "unlock"} <= set(stopctl.store.__all__)
    assert stopctl.store.unlock is unlock

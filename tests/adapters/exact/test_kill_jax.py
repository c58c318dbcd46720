"""A loop of stopctl_jax, killed and started again with other seeds, ends bitwise as one that never was."""

from __future__ import annotations

from pathlib import Path

import pytest

from adapters.exact.harness import KILLED, STRAIGHT, Program, Work, differing, play

pytest.importorskip("jax")


@pytest.mark.parametrize(
    "forgets",
    [
        pytest.param(["key"], id="once"),
        pytest.param(["params", "moments", "average", "rng.numpy"], id="more", marks=pytest.mark.long),
    ],
)
def test_killed_in_an_epoch_and_in_a_save_it_ends_as_if_never_killed(
    forgets: list[str], tmp_path: Path
) -> None:
    with Program("jax_program", servers=1) as program:
        straight = play(program, Work(tmp_path / "straight", ""), STRAIGHT)
        work = Work(tmp_path / "killed", "")
        assert program.attempt(work, "batch 5 2") == KILLED
        mutants = {name: work.copy(tmp_path / name) for name in forgets}
        assert work.new_passes() == "12345"
        assert play(program, work, [("save 6 before rename 1", "56"), ("", "6789")]) == straight
        assert play(program, work, [("", "")]) == straight  # stopped by its rule: nothing is trained
        for name, mutant in mutants.items():
            assert program.attempt(mutant, mutant=name) == 0
            assert name.replace("rng.numpy", "params") in differing(mutant.ended(), straight), name

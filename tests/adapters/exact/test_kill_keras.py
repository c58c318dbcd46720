"""``model.fit`` on each backend of Keras, killed and started again, ends bitwise as one that never was."""

from __future__ import annotations

from pathlib import Path

import pytest

from adapters.exact.harness import KILLED, STRAIGHT, Attempts, Program, Work, differing, play

IN_AN_EPOCH, IN_A_SAVE = ("batch 5 2", "12345"), ("save 6 before rename 1", "56")
FORGETS = {"torch": "rng.torch", "jax": "model", "tensorflow": "optimizer"}
CASES = [
    *(pytest.param(name, [IN_AN_EPOCH, ("", "56789")], "", id=name) for name in ("torch", "jax")),
    *(
        pytest.param(
            name, [IN_AN_EPOCH, IN_A_SAVE, ("", "6789")], lost, id=f"{name}, more", marks=pytest.mark.long
        )
        for name, lost in FORGETS.items()
    ),
]


@pytest.mark.parametrize(("backend", "attempts", "forgets"), CASES)
def test_killed_in_an_epoch_and_in_a_save_it_ends_as_if_never_killed(
    backend: str, attempts: Attempts, forgets: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KERAS_BACKEND", backend)
    with Program("keras_program", servers=1) as program:
        straight = play(program, Work(tmp_path / "straight", ""), STRAIGHT)
        work = Work(tmp_path / "killed", "")
        assert program.attempt(work, attempts[0][0]) == KILLED
        mutant = work.copy(tmp_path / "mutant")
        assert work.new_passes() == attempts[0][1]
        assert play(program, work, attempts[1:]) == straight
        if forgets:
            assert program.attempt(mutant, mutant=forgets) == 0
            assert "weights" in differing(mutant.ended(), straight)

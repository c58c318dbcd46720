"""A run that goes on from a saved state ends bitwise as one that was never interrupted."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from tensorflow.python.ops import stateful_random_ops

from stopctl.ports import Tree
from stopctl_tf import TfState

MIDDLE, END = 5, 9  # 5 is in the middle of an epoch of three steps


@pytest.fixture(scope="module")
def uninterrupted(
    module_program: ModuleType, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, dict[str, str]]:
    """The state after step 5 in a file, and the fingerprint after step 9."""
    module_program.seed(1)
    whole = module_program.Program()
    state = whole.state()
    whole.train(1, MIDDLE)
    saved = tmp_path_factory.mktemp("saved") / "state.json"
    module_program.dump(state.capture(), saved)
    whole.train(MIDDLE + 1, END)
    return saved, module_program.fingerprint(state.capture())


def test_a_fresh_process_goes_on_bitwise(
    uninterrupted: tuple[Path, dict[str, str]], fresh_process: Callable[..., Any]
) -> None:
    saved, end = uninterrupted
    script = str(Path(__file__).with_name("program.py"))
    assert fresh_process(script, str(saved), str(MIDDLE + 1), str(END)) == end


def test_fresh_objects_in_the_same_process_go_on_bitwise(
    program: ModuleType, uninterrupted: tuple[Path, dict[str, str]]
) -> None:
    saved, end = uninterrupted
    assert program.resumed(saved, MIDDLE + 1, END, program.whole) == end


def test_a_global_generator_that_is_not_there_yet_is_made(
    program: ModuleType, uninterrupted: tuple[Path, dict[str, str]]
) -> None:
    def without_generator(fresh: Any, components: dict[str, Tree]) -> TfState:
        stateful_random_ops.global_generator = None
        return program.whole(fresh, components)

    saved, end = uninterrupted
    assert program.resumed(saved, MIDDLE + 1, END, without_generator) == end


def test_going_back_and_training_again_repeats_bitwise_under_the_same_traced_function(
    program: ModuleType, reloaded: Callable[..., dict[str, Tree]]
) -> None:
    program.seed(1)
    one = program.Program()
    state = one.state()
    one.train(1, 2)
    saved = reloaded(state.capture())
    one.train(3, 6)
    first = program.fingerprint(state.capture())
    traces = one._step.experimental_get_tracing_count()
    state.restore(saved)
    assert program.fingerprint(state.capture()) == program.fingerprint(saved)
    one.train(3, 6)
    assert program.fingerprint(state.capture()) == first
    assert one._step.experimental_get_tracing_count() == traces


class WithoutSeeds(TfState):
    """A mutant: forgets the seed generators inside the model."""

    def restore(self, components: Mapping[str, Tree], *, allow_missing: Collection[str] = ()) -> None:
        seeds = [v for v in self._parts["model"].thing.variables if v.name == "seed_generator_state"]
        assert seeds
        before = [v.numpy() for v in seeds]
        super().restore(components, allow_missing=allow_missing)
        for variable, value in zip(seeds, before, strict=True):
            variable.assign(value)


def _without(name: str) -> type[TfState]:
    class Without(TfState):
        """A mutant: forgets one component."""

        def restore(self, components: Mapping[str, Tree], *, allow_missing: Collection[str] = ()) -> None:
            assert name in components
            kept = {key: tree for key, tree in components.items() if key != name}
            super().restore(kept, allow_missing={*allow_missing, name})

    return Without


FORGETTING = [
    "model",
    "optimizer",
    "extra.noise",
    "extra.average",
    "extra.seeds",
    "rng.python",
    "rng.numpy",
    "rng.tf",
    "rng.keras",
]


@pytest.mark.parametrize(
    "mutant", [WithoutSeeds, *map(_without, FORGETTING)], ids=["model's seeds", *FORGETTING]
)
def test_a_restore_that_forgets_anything_is_found_out(
    mutant: type[TfState], program: ModuleType, uninterrupted: tuple[Path, dict[str, str]]
) -> None:
    def forgetful(fresh: Any, components: dict[str, Tree]) -> TfState:
        state = fresh.state(mutant)
        state.restore(components)
        return state

    saved, end = uninterrupted
    assert program.resumed(saved, MIDDLE + 1, END, forgetful) != end

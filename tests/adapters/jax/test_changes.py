"""A state that nobody has set is told once, at the first save after training; any other never."""

from __future__ import annotations

import pytest

from stopctl import Every, Indices, OnBest, Patience

jax = pytest.importorskip("jax")
jnp = jax.numpy

from stopctl_jax import Run  # noqa: E402


def told(caplog) -> int:
    return caplog.text.count("the very arrays that it held at the save before")


def test_a_state_that_is_never_set_is_told_once(tmp_path, caplog):
    params = {"w": jnp.ones(2)}
    with Run(tmp_path, state=params, stop=Patience(9)) as run:
        for epoch in run.epochs(4):
            params = {"w": params["w"] + 1}
            run.report(val_loss=1.0 / epoch)
            assert told(caplog) == (epoch > 1)  # told at the end of the first pass
    with Run(tmp_path, state=params, stop=Patience(9)) as run:  # resumed, and told again
        for epoch in run.epochs(6):
            params = {"w": params["w"] + 1}
            run.report(val_loss=1.0 / epoch)
    assert told(caplog) == 2


@pytest.mark.parametrize("save", [Every(epochs=1), Every(steps=1) | OnBest(), Every(epochs=2)])
@pytest.mark.parametrize("middle", [0, 1, 3])
def test_a_state_that_is_set_in_each_step_is_not(save, middle, tmp_path, caplog):
    with Run(tmp_path, state={"w": jnp.ones(2), "frozen": jnp.ones(2)}, stop=Patience(9), save=save) as run:
        for epoch in run.epochs(3):
            for _ in run.batches(Indices(6, batch_size=2)):
                run.state = {**run.state, "w": run.state["w"] + 1}
                if run.batch == middle:
                    run.report(val_loss=1.0 / epoch)
            run.report(val_loss=1.0 / epoch)
        run.save("last")
        run.restore_best()
        run.save("best")
    with Run(tmp_path, state={"w": jnp.ones(2), "frozen": jnp.ones(2)}, stop=Patience(9), save=save) as run:
        for n in run.steps(run.progress.step + 3):
            run.state = {**run.state, "w": run.state["w"] + 1}
            if n % 2:
                run.report(val_loss=1.0 / n)
    assert told(caplog) == 0


@pytest.mark.parametrize("save", [OnBest(), Every(steps=2)])
@pytest.mark.parametrize("trains", [True, False])
def test_of_a_run_that_is_pushed_a_report_before_all_training_is_none_of_it(save, trains, tmp_path, caplog):
    run = Run(tmp_path, state={"w": jnp.ones(2)}, stop=None, save=save).open()
    run.report(val_loss=9.0, epoch=0, step=0)
    for step in range(1, 10):
        if trains:
            run.state = {"w": run.state["w"] + 1}
        if step % 3:
            run.boundary(epoch=step // 3, step=step)
        else:
            run.report(val_loss=1.0 / step, epoch=step // 3, step=step)
    run.close()
    assert told(caplog) == (not trains)

"""k folds choose the number of epochs for which all data is trained; a run each, so none is done twice."""

import sys
from pathlib import Path

import numpy as np

from stopctl import Every, Run
from stopctl.rules import epochs_from_folds

directory = Path(sys.argv[1] if len(sys.argv) > 1 else "runs/k_fold")

rng = np.random.default_rng(0)
x = rng.normal(size=(200, 40))
y = x[:, 0] - 0.5 * x[:, 1] + rng.normal(size=200)


def trained(name: str, train: np.ndarray, epochs: int, valid: np.ndarray | None = None) -> dict:
    """Linear regression by gradient descent, in a run of its own; its errors are part of its state."""
    state = {"weights": np.zeros(x.shape[1]), "errors": []}
    judged = train if valid is None else valid
    with Run(directory / name, state=state, stop=None, save=Every(epochs=25)) as run:
        for epoch in run.epochs(epochs):
            state["weights"] -= 0.02 * x[train].T @ (x[train] @ state["weights"] - y[train]) / len(train)
            error = float(np.mean((x[judged] @ state["weights"] - y[judged]) ** 2))
            state["errors"].append(error)
            run.report(val_loss=error)
    return state


folds = np.array_split(rng.permutation(200), 5)
curves = []
for k, valid in enumerate(folds, start=1):  # whole curves: no early stopping in the folds
    rest = np.concatenate([fold for fold in folds if fold is not valid])
    curves.append(trained(f"fold-{k}", rest, 150, valid)["errors"])

choice = epochs_from_folds(curves)
final = trained("all", np.arange(200), choice.epochs)
weights = final["weights"][:2].round(2)
print(f"the folds choose {choice.epochs} epochs, each alone {choice.spread}; weights {weights}")

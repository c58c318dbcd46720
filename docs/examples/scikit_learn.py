"""scikit-learn's partial_fit: what the estimator has learned is the state."""

import sys

import numpy as np
from sklearn.datasets import load_digits
from sklearn.linear_model import SGDClassifier
from sklearn.metrics import log_loss

from stopctl import Every, Maximize, OnBest, Patience, Run

directory = sys.argv[1] if len(sys.argv) > 1 else "runs/scikit_learn"

x, y = load_digits(return_X_y=True)
x = x / 16
model = SGDClassifier(loss="log_loss", alpha=1e-4, random_state=0)
state = {"learned": {}}  # empty is a place to fill: so it is in a new run, and no longer in one that goes on

with Run(
    directory, state=state, goal=Maximize("accuracy"), stop=Patience(10), save=Every(epochs=10) | OnBest()
) as run:
    vars(model).update(state["learned"])
    for epoch in run.epochs(100):
        order = np.random.default_rng([0, epoch]).permutation(1200)  # by (seed, epoch)
        for rows in np.array_split(order, 12):
            model.partial_fit(x[rows], y[rows], classes=range(10))
        state["learned"] = {name: value for name, value in vars(model).items() if name[0] != "_" == name[-1]}
        loss = log_loss(y[1200:], model.predict_proba(x[1200:]))
        run.report(accuracy=model.score(x[1200:], y[1200:]), val_loss=loss)
    best = run.restore_best()
    vars(model).update(state["learned"])
print(f"{run.stopped or 'all epochs are done'}; best accuracy {best.value:.4f} in epoch {best.epoch}")

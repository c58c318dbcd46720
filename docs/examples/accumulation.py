"""A loop of steps, each the gradients of four batches; it reports every 25 steps, goes on at any."""

import sys

import torch
from torch.nn.functional import mse_loss
from torch.utils.data import DataLoader, TensorDataset

from stopctl import Every, OnBest, Patience
from stopctl_torch import Run

directory = sys.argv[1] if len(sys.argv) > 1 else "runs/accumulation"

torch.manual_seed(0)
x = torch.randn(1200, 16)
y = torch.sin(x[:, :1] + x[:, 1:2]) + 0.3 * torch.randn(1200, 1)
loader = DataLoader(TensorDataset(x[200:], y[200:]), batch_size=16, shuffle=True)

model = torch.nn.Sequential(torch.nn.Linear(16, 64), torch.nn.Tanh(), torch.nn.Linear(64, 1))
optimizer = torch.optim.Adam(model.parameters(), lr=5e-3)

with Run(
    directory, model=model, optimizer=optimizer, stop=Patience(5), save=Every(steps=40) | OnBest()
) as run:
    batches = run.batches(loader)  # once, before the loop: next() goes from epoch to epoch of the data
    for step in run.steps(600):
        optimizer.zero_grad()
        for _ in range(4):  # whole within one step, as gradients are not saved
            inputs, targets = next(batches)
            (mse_loss(model(inputs), targets) / 4).backward()
        optimizer.step()
        if step % 25 == 0:
            with torch.no_grad():
                run.report(val_loss=mse_loss(model(x[:200]), y[:200]).item())
    best = run.restore_best()
print(f"{run.stopped or 'all steps are done'}; best val_loss {best.value:.4f} in step {best.step}")

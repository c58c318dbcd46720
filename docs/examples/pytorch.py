"""PyTorch: stopped, saved, kept; killed and started again, it goes on at the batch after its newest save."""

import sys

import torch
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader, TensorDataset

from stopctl import Best, Every, Last, NonFinite, OnBest, Patience
from stopctl_torch import Run, load

directory = sys.argv[1] if len(sys.argv) > 1 else "runs/pytorch"

torch.manual_seed(0)  # a process that goes on draws the same data and makes the same objects as the first
y = torch.randint(10, (2400,))
x = torch.randn(10, 64)[y] + 4 * torch.randn(2400, 64)
loader = DataLoader(TensorDataset(x[400:], y[400:]), batch_size=50, shuffle=True)


def network() -> torch.nn.Module:
    return torch.nn.Sequential(
        torch.nn.Linear(64, 128), torch.nn.ReLU(), torch.nn.Dropout(0.2), torch.nn.Linear(128, 10)
    )


model = network()
optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=50)

with Run(
    directory,
    model=model,
    optimizer=optimizer,
    scheduler=scheduler,
    stop=Patience(5) | NonFinite(),
    save=Every(steps=100) | OnBest(),
    keep=Last(2) | Best(1),
    notes={"lr": 1e-3},
) as run:
    for epoch in run.epochs(50):
        model.train()
        for images, labels in run.batches(loader):  # counts steps, and saves between two batches, too
            optimizer.zero_grad()
            cross_entropy(model(images), labels).backward()
            optimizer.step()
        scheduler.step()  # before the report: what the report judges is what it saves
        model.eval()
        with torch.no_grad():
            logits = model(x[:400])
        accuracy = (logits.argmax(1) == y[:400]).float().mean().item()
        run.report(val_loss=cross_entropy(logits, y[:400]).item(), accuracy=accuracy)

fresh = network()  # elsewhere, later: the best weights alone, verified
best = load(directory, model=fresh)
print(f"{run.stopped or 'all epochs are done'}; best val_loss {best.value:.4f} in epoch {best.epoch}")

"""A GAN: two models and two optimizers by name; judged by what it makes, as neither loss tells that."""

import sys

import torch
from torch.nn.functional import binary_cross_entropy_with_logits as bce

from stopctl import Best, Every, Last, Minimize, NonFinite, OnBest, Patience
from stopctl_torch import Run

directory = sys.argv[1] if len(sys.argv) > 1 else "runs/gan"

torch.manual_seed(0)
real = torch.randn(1000, 2) @ torch.tensor([[1.0, 0.8], [0.0, 0.6]]) + torch.tensor([2.0, -1.0])
fixed = torch.randn(1000, 4)  # the same noise for every judgement


def network(inputs: int, outputs: int) -> torch.nn.Module:
    return torch.nn.Sequential(
        torch.nn.Linear(inputs, 32), torch.nn.LeakyReLU(0.2), torch.nn.Linear(32, outputs)
    )


models = {"generator": network(4, 2), "discriminator": network(2, 1)}
generator, discriminator = models.values()
optimizers = {
    name: torch.optim.Adam(each.parameters(), lr=3e-3, betas=(0.5, 0.9)) for name, each in models.items()
}

with Run(
    directory,
    model=models,
    optimizer=optimizers,
    goal=Minimize("distance"),
    stop=Patience(10) | NonFinite(),
    save=Every(epochs=5) | OnBest(),
    keep=Last(1) | Best(2),
) as run:
    for epoch in run.epochs(40):
        for rows in torch.randperm(1000).split(100):  # from PyTorch's generator, which is saved
            fake = generator(torch.randn(100, 4))
            yes, no = discriminator(real[rows]), discriminator(fake.detach())
            optimizers["discriminator"].zero_grad()
            (bce(yes, torch.ones_like(yes)) + bce(no, torch.zeros_like(no))).backward()
            optimizers["discriminator"].step()
            fooled = discriminator(fake)
            optimizers["generator"].zero_grad()
            bce(fooled, torch.ones_like(fooled)).backward()
            optimizers["generator"].step()
        with torch.no_grad():
            made = generator(fixed)
        distance = (made.mean(0) - real.mean(0)).norm() + (made.T.cov() - real.T.cov()).norm()
        run.report(distance=distance.item())
    best = run.restore_best()  # both models, as they were in that epoch
print(f"{run.stopped or 'all epochs are done'}; best distance {best.value:.4f} in epoch {best.epoch}")

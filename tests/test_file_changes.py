"""How often one report, one save and one resume change from one file of ours to another: it may only fall.

A value goes down once and comes up once; who follows one through the code changes file that often.
"""

from __future__ import annotations

import itertools
import sys
from pathlib import Path

import torch

import stopctl
import stopctl_torch
from stopctl import Every, Patience

OURS = tuple(str(Path(module.__file__).parent) for module in (stopctl, stopctl_torch))


class Changes:
    """Counts, as a context manager, the calls into another file of ours than the call before."""

    def __enter__(self):
        self.files = []
        sys.setprofile(self._see)
        return self

    def __exit__(self, *error):
        sys.setprofile(None)

    def _see(self, frame, event, arg):
        if event == "call" and frame.f_code.co_filename.startswith(OURS):
            self.files.append(frame.f_code.co_filename)

    def __len__(self):
        return sum(a != b for a, b in itertools.pairwise(self.files))


def test_a_report_a_save_and_a_resume_change_file_no_more_often(tmp_path):
    def opened():
        torch.manual_seed(0)
        model = torch.nn.Linear(4, 2)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        run = stopctl_torch.Run(
            tmp_path, model=model, optimizer=optimizer, stop=Patience(5), save=Every(epochs=3), team=None
        )
        return run, model, optimizer

    run, model, optimizer = opened()
    counted = {}
    with run:
        for epoch in run.epochs(6):
            optimizer.zero_grad()
            model(torch.ones(3, 4)).sum().backward()
            optimizer.step()
            value = 1.0 if epoch == 2 else 1.0 / epoch  # the second decides nothing, the sixth saves
            with Changes() as changes:
                decision = run.report(val_loss=value)
            counted[epoch] = len(changes), decision
    run, _, _ = opened()
    with Changes() as resume:
        run.open()
    run.close()
    report, nothing = counted[2]
    save, saves = counted[6]
    assert (nothing.new_best, nothing.save, nothing.stop) == (False, None, None)
    assert saves.save is not None
    print(f"changes of file: report {report}, save {save}, resume {len(resume)}")
    assert report <= REPORT
    assert save <= SAVE
    assert len(resume) <= RESUME


REPORT, SAVE, RESUME = 41, 256, 367

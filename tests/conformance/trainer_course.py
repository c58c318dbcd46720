"""Starts a program with a Trainer several times, each in a forked process that may be killed; prints how each ended.

``python trainer_course.py PROGRAM '[{"directory": ..., "seed": 0, "kill": ["save", 7]}, ...]' ARGUMENTS``: one JSON
object a start, null for one that was killed. Kills: before the n-th ``torch.save`` of the process, or in step n.
"""

from __future__ import annotations

import hashlib
import json
import os
import random
import runpy
import signal
import sys

import numpy as np
import torch
import transformers


def flat(value, path=""):
    if isinstance(value, dict):
        for key in sorted(value, key=str):
            yield from flat(value[key], f"{path}/{key}")
    elif isinstance(value, list | tuple):
        for i, part in enumerate(value):
            yield from flat(part, f"{path}/{i}")
    elif isinstance(value, torch.Tensor | np.ndarray):
        yield path, hashlib.sha256(np.ascontiguousarray(value).tobytes()).hexdigest()
    else:
        yield path, repr(value)


def digest(value) -> str:
    return hashlib.sha256(repr([*flat(value)]).encode()).hexdigest()[:16]


def killed() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def start(program: str, seed: int, kill: tuple[str, int] | None) -> dict[str, object]:
    counts = {"save": 0, "trained": 0}
    save, step = torch.save, transformers.Trainer.training_step

    def saved(*args, **options):
        counts["save"] += 1
        if kill == ["save", counts["save"]]:
            killed()
        return save(*args, **options)

    def stepped(trainer, *args, **options):
        counts["trained"] += 1
        if kill == ["step", trainer.state.global_step]:
            killed()
        return step(trainer, *args, **options)

    torch.save, transformers.Trainer.training_step = saved, stepped
    torch.manual_seed(seed)
    names = runpy.run_path(program, run_name="__main__")
    trainer, scheduler = names["trainer"], names["trainer"].lr_scheduler.state_dict()
    return {
        "steps": names["output"].global_step,
        "trained": counts["trained"],
        "model": digest(trainer.model.state_dict()),
        "optimizer": digest(trainer.optimizer.state_dict()),
        "scheduler": digest({k: v for k, v in scheduler.items() if not k.startswith("_")}),
        "generators": digest([torch.get_rng_state(), np.random.get_state(), random.getstate()]),
        "evaluations": [line["eval_loss"] for line in trainer.state.log_history if "eval_loss" in line],
    }


def main() -> None:
    program, starts, *sys.argv[1:] = sys.argv[1:]
    for each in json.loads(starts):
        read, write = os.pipe()
        if not (child := os.fork()):
            os.makedirs(each["directory"], exist_ok=True)
            os.chdir(each["directory"])
            torch.set_num_threads(1)
            os.dup2(2, 1)  # what it prints is for whoever reads the errors
            ended = start(program, each["seed"], each["kill"])
            os.write(write, json.dumps(ended).encode())
            os._exit(0)
        os.close(write)
        with os.fdopen(read, "rb") as told:
            text = told.read()
        _, status = os.waitpid(child, 0)
        if status and os.waitstatus_to_exitcode(status) != -signal.SIGKILL:
            sys.exit(f"{each}: ended with {os.waitstatus_to_exitcode(status)}")
        print(text.decode() or "null", flush=True)


main()

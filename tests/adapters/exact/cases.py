"""The one list of moving parts: which of them a resumed run goes on with bitwise, and which not, and why.

`docs/resume.md` prints it; the tests beside this file prove every exact row.
"""

from __future__ import annotations

from dataclasses import dataclass

TORCH, TF = "PyTorch", "TensorFlow"


@dataclass(frozen=True, slots=True)
class Case:
    """One moving part.

    Attributes:
        name: the row in the matrix, and the key of its training loop.
        framework: whose.
        moves: what a resumed run must find again, and where it is given.
        forgets: a component that, when the restoring forgets it, changes the end: so the proof can fail.
        why_not: why it is not exact, and what to do instead; empty where it is.
    """

    name: str
    framework: str
    moves: str
    forgets: str = ""
    why_not: str = ""


def torch(name: str, moves: str, forgets: str) -> Case:
    """An exact one."""
    return Case(name, TORCH, moves, forgets)


def tf(name: str, moves: str, forgets: str) -> Case:
    """An exact one."""
    return Case(name, TF, moves, forgets)


EXACT = (
    torch("StepLR", "`scheduler=`: its position", "scheduler"),
    torch("MultiStepLR", "`scheduler=`: its milestones are a Counter", "scheduler"),
    torch("SequentialLR", "`scheduler=`: warm-up, then cosine; the schedulers inside too", "scheduler"),
    torch("LambdaLR", "`scheduler=`: its position; the function is the script's", "scheduler"),
    torch("CosineAnnealingWarmRestarts", "`scheduler=`: its place in the period", "scheduler"),
    torch("OneCycleLR", "`scheduler=`, and the momentum that it moves in the optimizer", "scheduler"),
    torch("ReduceLROnPlateau", "`scheduler=`: its best and its bad epochs", "scheduler"),
    torch("GradScaler, bfloat16 autocast", "`scaler=`: scale and growth", "scaler"),
    torch("AveragedModel", "`extra=`: the averages and their count", "extra.ema"),
    torch(
        "AveragedModel, swapped in for validation", "`extra=`: also which of the two is in place", "extra.ema"
    ),
    torch("gradient accumulation", "`run.batches(..., accumulate=2)`: saved between groups", "optimizer"),
    torch("dropout and batch-norm", "PyTorch's generator; running statistics", "rng.torch"),
    torch("two optimizers and models", "`model={...}, optimizer={...}`", "optimizer.critic"),
    torch("tied weights", "saved once, tied again", "optimizer"),
    torch("LBFGS", "its history of directions", "optimizer"),
    torch("AdamW, fused", "moments; its kernel on the CPU", "optimizer"),
    torch("AdamW, foreach", "moments", "optimizer"),
    torch("torch.compile", "the module inside; backend `aot_eager`", "optimizer"),
    torch("DataLoader, inside the epoch", "PyTorch's generator: order, and what the rows draw", "optimizer"),
    torch("DataLoader, workers, inside the epoch", "order, and what the workers draw", "optimizer"),
    torch("StatefulDataLoader, inside the epoch", "it tells its position itself", "optimizer"),
    torch("a torch.Generator of your own", "`extra=`: its place in its stream", "extra.noise"),
    tf("PiecewiseConstantDecay", "the optimizer's iterations", "optimizer"),
    tf("CosineDecay", "the optimizer's iterations", "optimizer"),
    tf("LossScaleOptimizer", "scale, its counter, the optimizer inside", "optimizer"),
    tf("use_ema", "the averages, in the optimizer", "optimizer"),
    tf("use_ema, swapped in for validation", "`extra=`: also which of the two is in place", "optimizer"),
    tf("gradient_accumulation_steps", "accumulators, in the optimizer", "optimizer"),
    tf("dropout and batch-norm", "seed generators and statistics of the model", "optimizer"),
    tf("two optimizers and models", "`model={...}, optimizer={...}`", "optimizer.critic"),
    tf("tied layers", "saved once", "optimizer"),
    tf("tf.function", "variables under a traced function", "optimizer"),
    tf("jit_compile=True", "variables under a compiled function", "optimizer"),
    tf("AdamW", "moments", "optimizer"),
    tf("tf.random.Generator", "`extra=`: its place in its stream", "extra.noise"),
    tf("keras.random.SeedGenerator", "`extra=`: its place in its stream", "extra.seeds"),
    tf("epoch_shuffled, inside the epoch", "the epoch, and the batches that are done", "optimizer"),
    tf(
        "iterator of tf.data, inside the epoch",
        "TensorFlow writes its position; the seeds are the script's",
        "optimizer",
    ),
    tf("keras.random without a seed", "Keras' own generator", "rng.keras"),
)

NOT_EXACT = (
    Case(
        "weights swapped out again after `report()`",
        "both",
        "the averages stay in place of the weights",
        why_not="what is there at `report()` is saved: swap at the beginning of the pass, as below (PyTorch: "
        "an error)",
    ),
    Case(
        "gradients that were not applied",
        TORCH,
        "`.grad` between two steps",
        why_not="they are not saved: `run.batches(..., accumulate=k)` saves between groups only",
    ),
    Case(
        "DataLoader(persistent_workers=True)",
        TORCH,
        "generators and counters inside the workers",
        why_not="nobody can read them from outside: refused; workers that keep nothing are exact",
    ),
    Case(
        "`tf.random.normal` and its like",
        TF,
        "a position hidden in their kernels",
        why_not="TensorFlow does not show it: `tf.random.Generator`, `keras.random`, stateless operations",
    ),
    Case(
        "`shuffle()` of `tf.data`, without a seed",
        TF,
        "a hidden position",
        why_not="TensorFlow does not show it: `epoch_shuffled`, or an iterator that TensorFlow writes",
    ),
    Case(
        "counters of other callbacks in `fit`",
        TF,
        "`ReduceLROnPlateau.wait` and the like",
        why_not="they are plain attributes that nobody leads to: `lr=stopctl.ReduceOnPlateau(...)`",
    ),
    Case(
        "nondeterministic kernels",
        "both",
        "the order of sums",
        why_not="not even two undisturbed runs agree: switch on the framework's deterministic operations",
    ),
    Case(
        "another thread count, machine or library version",
        "both",
        "the order of sums",
        why_not="opening says what differs, in one line",
    ),
)

BEGIN, END = "<!-- matrix: begin -->", "<!-- matrix: end -->"


def table() -> str:
    """The matrix as it stands in docs/resume.md, between the two marks."""
    lines = ["| moving part | framework | what moves, and where it is given | exact |", "|---|---|---|---|"]
    lines += [f"| {case.name} | {case.framework} | {case.moves} | yes |" for case in EXACT]
    lines += [f"| {case.name} | {case.framework} | {case.moves} | no: {case.why_not} |" for case in NOT_EXACT]
    return "\n".join(lines)

"""Run directories read back: their history, checkpoints and standing."""

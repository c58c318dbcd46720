"""Runs inside the trials of a tuner: `stopctl.tuners.optuna` and `stopctl.tuners.ray`."""

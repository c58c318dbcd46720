"""Observers that write what a run does to where people look: CSV, TensorBoard, MLflow, Weights & Biases."""

from __future__ import annotations

from stopctl.sinks.csv import CsvSink
from stopctl.sinks.mlflow import MlflowSink
from stopctl.sinks.tensorboard import TensorBoardSink
from stopctl.sinks.wandb import WandbSink

__all__ = ["CsvSink", "MlflowSink", "TensorBoardSink", "WandbSink"]

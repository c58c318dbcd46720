"""Boosting by rounds as runs: `stopctl.boosters.xgboost` and `stopctl.boosters.lightgbm`."""

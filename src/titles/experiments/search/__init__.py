"""Hyper-parameter search: Optuna proposes parameters, each trial is an experiment of DVC."""

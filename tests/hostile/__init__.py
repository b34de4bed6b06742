"""Hostile cases against the commands, a module per subject; `adversary.py` runs them."""

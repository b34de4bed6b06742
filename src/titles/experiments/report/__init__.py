"""Experiments beside each other: one page to look at and the same as Markdown."""

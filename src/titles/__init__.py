"""Marketplace listing titles into categories."""

# Before numpy and torch, which read its settings when they are imported.
from titles.data import processor as _processor  # noqa: F401

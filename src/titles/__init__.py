"""Marketplace listing titles into categories."""

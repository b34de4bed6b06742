"""A page to try trained networks on."""

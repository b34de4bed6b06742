"""Named experiments from a file: queued with DVC, and shown beside published figures."""

"""Trained networks as a folder for the Hugging Face Hub, which runs without this package."""

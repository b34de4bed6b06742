"""The web page of `titles demo`."""

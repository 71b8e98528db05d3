"""Parley against a Node.js server that does the same work, measured in turn on the same core: `python -m bench`."""

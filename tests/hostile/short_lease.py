"""Parley whose word of who is there holds briefly: `python -m tests.hostile.short_lease` serves so, to be killed."""

from __future__ import annotations

import sys

import handlers  # noqa: F401  (declares the commands, before the command line is set up)
from server.cli.main import main
from server.rooms import lease, presence

LEASE_S, RENEW_S = 1.0, 0.25


def shorten() -> None:
    """Say every quarter of a second that this instance lives, for a second."""
    lease.LEASE_S, presence.RENEW_S = LEASE_S, RENEW_S


if __name__ == "__main__":
    shorten()
    sys.argv[1:] = ["serve"]
    main()

"""A bus that a test makes fail."""

from __future__ import annotations

from server.rooms.bus import LocalBus
from server.rooms.log import Event


class LossyBus(LocalBus):
    """A bus that loses everything while `is_deaf`."""

    is_deaf = False

    def publish(self, event: Event) -> None:
        if not self.is_deaf:
            super().publish(event)

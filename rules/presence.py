"""Whether somebody is there."""

from enum import StrEnum


class PresenceState(StrEnum):
    ONLINE = "online"
    AWAY = "away"
    OFFLINE = "offline"

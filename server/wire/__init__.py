"""Bytes in, packets out: Engine.IO and Socket.IO over aiohttp. Knows no command and no room log.

Above this package nobody knows which engine runs: they see `Server`, `Connection`, `Listener` and `Packet`.
"""

from server.wire.codec import CODECS, Packet, ack_packet, event_packet
from server.wire.connection import Connection, Listener, Refused, send_all
from server.wire.socketio import Server

__all__ = ["CODECS", "Connection", "Listener", "Packet", "Refused", "Server", "ack_packet", "event_packet", "send_all"]

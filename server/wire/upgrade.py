"""The upgrade from polling to a WebSocket: the client probes it, and goes over when the answer has come through."""

import asyncio

from server.wire.frames import Kind, frame
from server.wire.session import Session
from server.wire.websocket import WebSocket

UPGRADE_S = 10.0  # for a client that began an upgrade to go through with it


class Probe:
    """A WebSocket that tries to take over a session: `2probe`, `3probe`, `5`. `ws` is set when there is one."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._is_probed = False
        self.ws: WebSocket | None = None
        self._timer = asyncio.get_running_loop().call_later(UPGRADE_S, self.abort)

    def received(self, message: bytes, *, is_binary: bool) -> None:
        """Raises ValueError for what belongs in no upgrade; the session stays as it is."""
        if message == b"2probe" and not is_binary and not self._is_probed:
            assert self.ws is not None
            self._is_probed = True
            self.ws.write(frame(Kind.TEXT, b"3probe"))
            self._session.probed()
        elif message == b"5" and not is_binary and self._is_probed:
            assert self.ws is not None
            self._timer.cancel()
            self.ws.hand_over(self._session)
            self._session.open(self.ws)
        else:
            raise ValueError("not a packet of an upgrade")

    def abort(self) -> None:
        """Cut it."""
        if self.ws is not None:
            self.ws.abort()
        self.lost(malformed=True)

    def refuse(self) -> None:
        """Close it: another one is at it, or the session goes over one already."""
        self._timer.cancel()
        if self.ws is not None:
            self.ws.close()

    def slowed(self) -> None:
        """Nothing much is ever sent."""

    def flowing(self) -> None:
        """Nothing much is ever sent."""

    def lost(self, *, malformed: bool) -> None:
        """It has failed."""
        self._timer.cancel()
        self._session.keep_polling(self)

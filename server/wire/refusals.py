"""What is answered to a request that gets no session: the codes and words of Engine.IO's own servers."""

from collections.abc import Mapping

from aiohttp import web


class Refusal(Exception):
    """An answer to a request that gets no session, in the form of Engine.IO's own servers."""

    def __init__(
        self,
        code: int,
        message: str,
        status: int = 400,
        *,
        retry_after_s: int | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.status = status
        self.retry_after_s = retry_after_s
        self.headers = headers or {}

    def response(self) -> web.Response:
        """As HTTP."""
        headers = dict(self.headers)
        if self.retry_after_s is not None:
            headers["Retry-After"] = str(self.retry_after_s)
        return web.json_response({"code": self.code, "message": self.message}, status=self.status, headers=headers)


# What a `Refusal` is made of, anew for each: one that is raised twice keeps the frames of the first time, and with them
# the request.
UNKNOWN_TRANSPORT = (0, "Transport unknown")
WEBSOCKET_ALONE = (0, "No polling here: use the websocket transport, or a proxy that keeps a client on one instance")
UNKNOWN_SESSION = (1, "Session ID unknown")
BAD_METHOD = (2, "Bad handshake method")
BAD_REQUEST = (3, "Bad request")
TOO_LARGE = (3, "Payload too large", 413)
SHUT_DOWN = (3, "The server is going away", 503)
FORBIDDEN = (4, "Forbidden", 403)
UNSUPPORTED = (5, "Unsupported protocol version")

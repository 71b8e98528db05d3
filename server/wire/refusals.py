"""What is answered to a request that gets no session: the codes and words of Engine.IO's own servers."""

from aiohttp import web


class Refusal(Exception):
    """An answer to a request that gets no session, in the form of Engine.IO's own servers."""

    def __init__(self, code: int, message: str, status: int = 400, *, retry_after_s: int | None = None) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.status = status
        self.retry_after_s = retry_after_s

    def response(self) -> web.Response:
        """As HTTP."""
        headers = {} if self.retry_after_s is None else {"Retry-After": str(self.retry_after_s)}
        return web.json_response({"code": self.code, "message": self.message}, status=self.status, headers=headers)


UNKNOWN_TRANSPORT = Refusal(0, "Transport unknown")
UNKNOWN_SESSION = Refusal(1, "Session ID unknown")
BAD_METHOD = Refusal(2, "Bad handshake method")
BAD_REQUEST = Refusal(3, "Bad request")
FORBIDDEN = Refusal(4, "Forbidden", 403)
UNSUPPORTED = Refusal(5, "Unsupported protocol version")

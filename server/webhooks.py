"""What others tell us over HTTP: a payment provider, of payments."""

from aiohttp import web

from handlers.payments import take
from server.commands import answers
from server.commands.context import Services
from server.errors import NotFound, TooLarge
from server.http import respond

PATH = "/webhooks/stripe"
BODY_BYTES = 1_048_576  # Stripe says of no bound; its events have some kilobytes


class WebhookRoutes:
    """The route of one instance."""

    def __init__(self, services: Services) -> None:
        self._services = services

    def attach(self, app: web.Application) -> None:
        """Add the route to an application."""
        app.router.add_post(PATH, self.stripe)

    async def stripe(self, request: web.Request) -> web.Response:
        """`POST`: 200 once what it says is committed, or does not concern us; whatever else is said again by Stripe."""
        try:
            if self._services.payments is None:
                raise NotFound
            body = await _body(request)
            event = self._services.payments.read_event(body, request.headers.get("Stripe-Signature"))
            if event is not None:
                await take(self._services, event)
        except Exception as error:
            return respond(answers.error(error, "webhook"))
        return web.json_response({"ok": True, "data": {}})


async def _body(request: web.Request) -> bytes:
    """The body as it came, which is what is signed. Raises `TooLarge`."""
    body = bytearray()
    async for chunk in request.content.iter_any():
        body += chunk
        if len(body) > BODY_BYTES:
            raise TooLarge(f"The body is larger than {BODY_BYTES} bytes.", BODY_BYTES)
    return bytes(body)

"""A mail server that keeps what it is given."""

from __future__ import annotations

import asyncio
import email
import email.policy
from email.message import EmailMessage

from tests.people import PATIENCE_S


class Mailbox:
    """Takes mail by SMTP, without TLS; `said` is every command it was given.

    `refusals` are its answers to the next recipients it is told of, instead of taking them.
    """

    def __init__(self) -> None:
        self.messages: list[EmailMessage] = []
        self.said: list[str] = []
        self.refusals: list[bytes] = []
        self._news = asyncio.Condition()

    async def start(self) -> Mailbox:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port: int = self._server.sockets[0].getsockname()[1]
        return self

    @property
    def url(self) -> str:
        """What PARLEY_MAIL would be."""
        return f"smtp://127.0.0.1:{self.port}?from=parley@example.org"

    async def stop(self) -> None:
        self._server.close()

    async def message(self, to: str) -> EmailMessage:
        """Wait for a mail to somebody, and take the first out of the box."""
        async with asyncio.timeout(PATIENCE_S), self._news:
            while not (found := [one for one in self.messages if one["To"] == to]):
                await self._news.wait()
            self.messages.remove(found[0])
            return found[0]

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"220 mail.example.org\r\n")
        while line := (await reader.readline()).decode().strip():
            self.said.append(line)
            verb = line.split()[0].upper()
            if verb == "DATA":
                writer.write(b"354 go on\r\n")
                await self._keep(await reader.readuntil(b"\r\n.\r\n"))
            answers = {"QUIT": b"221 bye\r\n", "EHLO": b"250-mail.example.org\r\n250 AUTH PLAIN LOGIN\r\n"}
            refused = verb == "RCPT" and self.refusals
            writer.write(self.refusals.pop(0) if refused else answers.get(verb, b"250 ok\r\n"))
            if verb == "QUIT":
                break
        writer.close()

    async def _keep(self, text: bytes) -> None:
        message = email.message_from_bytes(text.removesuffix(b".\r\n"), policy=email.policy.default)
        async with self._news:
            self.messages.append(message)
            self._news.notify_all()

"""A first conversation by python-socketio's AsyncClient: run it against a server and read along.

    .venv/bin/python tests/clients/first_conversation.py http://127.0.0.1:8080

Two people register, connect, talk; one loses the connection, misses fifty messages, comes back and has them all.
"""

import asyncio
import sys
import uuid
from typing import Any

import aiohttp
import socketio

MISSED = 50


async def register(http: aiohttp.ClientSession, url: str, name: str) -> dict[str, Any]:
    """An account and its tokens."""
    username = f"{name}-{uuid.uuid4().hex[:8]}"
    account = {"username": username, "email": f"{username}@example.com", "password": "correct horse battery"}
    async with http.post(f"{url}/api/account/register", json=account) as response:
        answer = await response.json()
    if not answer["ok"]:
        sys.exit(f"register: {answer['error']}")
    data: dict[str, Any] = answer["data"]
    return data


class Phone:
    """A client that keeps its place in every room, as the contract asks: by seq, never by an ack."""

    def __init__(self, account: dict[str, Any]) -> None:
        self.account = account
        self.positions: dict[str, int] = {}
        self.texts: list[str] = []
        self.hello: dict[str, Any] = {}

    async def connect(self, url: str, transports: list[str] | None = None) -> None:
        """Connect, and resume behind what has been seen."""
        self.greeted = asyncio.Event()
        self.socket = socketio.AsyncClient(reconnection=False)
        self.socket.on("hello", self._on_hello)
        self.socket.on("message:created", self._on_message)
        auth = {"token": self.account["access_token"], "rooms": self.positions}
        await self.socket.connect(url, auth=auth, transports=transports)
        await self.greeted.wait()

    async def _on_hello(self, hello: dict[str, Any]) -> None:
        self.hello = hello
        self.greeted.set()

    async def _on_message(self, message: dict[str, Any], meta: dict[str, Any]) -> None:
        if meta["seq"] > self.positions.get(meta["room"], 0):
            self.positions[meta["room"]] = meta["seq"]
            self.texts.append(message["text"])

    async def call(self, command: str, **payload: Any) -> Any:
        """A command's data; an error ends the script."""
        answer = await self.socket.call(command, payload)
        if not answer["ok"]:
            sys.exit(f"{command}: {answer['error']}")
        return answer["data"]

    async def send(self, conversation_id: str, text: str) -> Any:
        """Send a message; the client_id makes it safe to send again."""
        key = uuid.uuid4().hex
        return await self.call("message:send", conversation_id=conversation_id, client_id=key, text=text)

    async def hears(self, texts: list[str]) -> None:
        """Wait until exactly these texts have been heard."""
        async with asyncio.timeout(10):
            while len(self.texts) < len(texts):
                await asyncio.sleep(0.01)
        if self.texts != texts:
            sys.exit(f"heard {self.texts}, not {texts}")


async def main(url: str) -> None:
    async with aiohttp.ClientSession() as http:
        amina, bilal = [Phone(await register(http, url, name)) for name in ("amina", "bilal")]
    await amina.connect(url, ["websocket"])
    await bilal.connect(url)  # polling first, then an upgrade: the library's default
    print("both are connected; the server is", amina.hello["instance"])

    conversation = await amina.call(
        "conversation:create", kind="private", user_ids=[bilal.account["user"]["user_id"]], client_id="first"
    )
    chat = conversation["conversation_id"]
    said = ["Is the bicycle still there?", "It is. Come and see it.", "كم السعر؟"]
    for phone, text in zip((amina, bilal, amina), said, strict=True):
        sent = await phone.send(chat, text)
        print(f"acknowledged as number {sent['seq']}: {text}")
    await amina.hears(said)
    await bilal.hears(said)

    history = await bilal.call("message:history", conversation_id=chat)
    assert [message["text"] for message in history["messages"]] == said

    await bilal.socket.disconnect()
    missed = [f"You missed this ({n})." for n in range(MISSED)]
    for text in missed:
        await amina.send(chat, text)
    await bilal.connect(url)
    await bilal.hears(said + missed)
    await amina.hears(said + missed)
    print(f"Bilal was away for {MISSED} messages and has them all, in order.")
    await asyncio.gather(amina.socket.disconnect(), bilal.socket.disconnect())


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1] if len(sys.argv) > 1 else "http://127.0.0.1:8080"))

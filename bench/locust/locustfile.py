"""People who talk two by two, for Locust: each is a socket that sends a message, waits for its ack, and pauses.

    pip install locust "python-socketio[client]"
    locust -f bench/locust/locustfile.py --host http://127.0.0.1:8080 --tokens tokens.txt --headless -u 100 -r 20 -t 60s

The file of tokens has one a line, as many as there are people, as `parley token` prints them. Locust shows the time to
the ack, and the time to the other's phone. What arrives is not looked at: that is what `parley load` does.
"""

from __future__ import annotations

import time
from typing import Any
from uuid import uuid4

import socketio
from gevent.event import Event
from locust import User, between, events, task
from locust.exception import StopUser

PATIENCE_S = 20


@events.init_command_line_parser.add_listener
def _add_options(parser: Any) -> None:
    parser.add_argument("--tokens", default="tokens.txt", help="a file of access tokens, one a line")


class Crowd:
    """Who is there to be had: the tokens nobody has taken, and somebody who waits for another to talk with."""

    def __init__(self) -> None:
        self.tokens: list[str] = []
        self.alone: Talker | None = None


crowd = Crowd()


@events.test_start.add_listener
def _read_tokens(environment: Any, **_: Any) -> None:
    with open(environment.parsed_options.tokens, encoding="utf-8") as file:
        crowd.tokens = [line.strip() for line in file if line.strip() and not line.startswith("#")]
    crowd.alone = None


class Talker(User):
    """Somebody with a phone."""

    wait_time = between(0.5, 2.0)

    def on_start(self) -> None:
        """Connect, hear the hello, and find somebody to talk with."""
        if not crowd.tokens:
            raise StopUser("There are fewer tokens than users.")
        self.greeted, self.seated = Event(), Event()
        self.conversation_id = self.user_id = ""
        self.phone = socketio.Client(reconnection=False)
        self.phone.on("hello", self._hear_hello)
        self.phone.on("message:created", self._hear_message)
        started = time.perf_counter()
        self.phone.connect(self.host, auth={"token": crowd.tokens.pop()}, transports=["websocket"])
        if not self.greeted.wait(PATIENCE_S):
            raise StopUser("No hello came.")
        self._tell("connect", started)
        other, crowd.alone = crowd.alone, None if crowd.alone else self
        if other is not None:
            asked = {"kind": "private", "user_ids": [other.user_id], "client_id": uuid4().hex}
            made = self.phone.call("conversation:create", asked, timeout=PATIENCE_S)
            for talker in (self, other):
                talker.conversation_id = made["data"]["conversation_id"]
                talker.seated.set()

    def on_stop(self) -> None:
        """Hang up."""
        if crowd.alone is self:
            crowd.alone = None
        self.phone.disconnect()

    @task
    def talk(self) -> None:
        """Send a message that says when it was sent."""
        if not self.seated.wait(timeout=1):
            return
        message = {
            "conversation_id": self.conversation_id,
            "client_id": uuid4().hex,
            "text": repr(time.perf_counter()),
        }
        started = time.perf_counter()
        try:
            answer = self.phone.call("message:send", message, timeout=PATIENCE_S)
            self._tell("ack", started, None if answer["ok"] else RuntimeError(answer["error"]["code"]))
        except socketio.exceptions.SocketIOError as error:
            self._tell("ack", started, error)

    def _hear_hello(self, hello: dict[str, Any]) -> None:
        self.user_id = hello["user_id"]
        self.greeted.set()

    def _hear_message(self, message: dict[str, Any], _: dict[str, Any]) -> None:
        if message["sender_id"] != self.user_id:  # one clock, for both are in this process
            self._tell("delivery", float(message["text"]))

    def _tell(self, name: str, started: float, error: Exception | None = None) -> None:
        self.environment.events.request.fire(
            request_type="socket",
            name=name,
            response_time=(time.perf_counter() - started) * 1000,
            response_length=0,
            exception=error,
            context={},
        )

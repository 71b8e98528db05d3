"""People who talk two by two, for Locust: each is a socket that sends a message, waits for its ack, and pauses.

    pip install locust "python-socketio[client]"
    locust -f bench/locust/locustfile.py --host http://127.0.0.1:8080 --tokens tokens.txt --headless -u 100 -r 20 -t 60s

The file of tokens has one a line, as many as there are people, as `parley token` prints them. With several processes
each has its share of them, and people talk within their process. Locust shows the time to the connect, to the ack, and
to the other's phone, and counts what fails. What arrives is not looked at: that is what `parley load` does.
"""

from __future__ import annotations

import time
from typing import Any
from uuid import uuid4

import socketio
from gevent.event import Event
from locust import User, between, events, task
from locust.exception import StopUser
from locust.runners import MasterRunner, WorkerRunner

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


@events.init.add_listener
def _listen(environment: Any, **_: Any) -> None:
    if not isinstance(environment.runner, MasterRunner):
        environment.runner.register_message("tokens", _take_tokens)


def _take_tokens(environment: Any, msg: Any, **_: Any) -> None:
    crowd.tokens = msg.data
    crowd.alone = None


@events.test_start.add_listener
def _share_tokens(environment: Any, **_: Any) -> None:
    """Give each process its own, before anybody comes: two people with one token would be one person."""
    runner = environment.runner
    if isinstance(runner, WorkerRunner):
        return
    with open(environment.parsed_options.tokens, encoding="utf-8") as file:
        tokens = [line.strip() for line in file if line.strip() and not line.startswith("#")]
    workers = list(runner.clients) if isinstance(runner, MasterRunner) else [None]
    for n, worker in enumerate(workers):
        runner.send_message("tokens", tokens[n :: len(workers)], worker)


class Talker(User):
    """Somebody with a phone."""

    wait_time = between(0.5, 2.0)

    def on_start(self) -> None:
        """Have a phone, which is silent still."""
        self.greeted, self.seated = Event(), Event()
        self.conversation_id = self.user_id = ""
        self.phone = socketio.Client(reconnection=False)
        self.phone.on("hello", self._hear_hello)
        self.phone.on("message:created", self._hear_message)

    def on_stop(self) -> None:
        """Hang up."""
        if crowd.alone is self:
            crowd.alone = None
        self.phone.disconnect()

    @task
    def talk(self) -> None:
        """Send a message that says when it was sent."""
        if not self.greeted.is_set():  # here, for of what fails in on_start Locust would print a traceback
            self._arrive()
        if not self.seated.wait(timeout=1):
            return
        message = {
            "conversation_id": self.conversation_id,
            "client_id": uuid4().hex,
            "text": repr(time.perf_counter()),
        }
        self._call("ack", "message:send", message)

    def _arrive(self) -> None:
        """Connect, hear the hello, and find somebody to talk with. Who can't has failed, and stays away."""
        self._connect()
        other, crowd.alone = crowd.alone, None if crowd.alone else self
        if other is not None:
            asked = {"kind": "private", "user_ids": [other.user_id], "client_id": uuid4().hex}
            made = self._call("create", "conversation:create", asked)
            if made is None:
                crowd.alone = other
                raise StopUser("There is no conversation.")
            for talker in (self, other):
                talker.conversation_id = made["conversation_id"]
                talker.seated.set()

    def _connect(self) -> None:
        """To the hello."""
        started = time.perf_counter()
        error: Exception | None = None
        try:
            if not crowd.tokens:
                raise RuntimeError("there are fewer tokens than users")
            self.phone.connect(self.host, auth={"token": crowd.tokens.pop()}, transports=["websocket"])
            if not self.greeted.wait(PATIENCE_S):
                raise TimeoutError("no hello came")
        except (socketio.exceptions.SocketIOError, RuntimeError, TimeoutError) as failure:
            error = failure
        self._tell("connect", started, error)
        if error is not None:
            raise StopUser(str(error))

    def _call(self, name: str, command: str, payload: dict[str, Any]) -> dict[str, Any] | None:
        """What a command is answered; None where it is refused or nothing comes, which is counted."""
        started = time.perf_counter()
        try:
            answer = self.phone.call(command, payload, timeout=PATIENCE_S)
        except socketio.exceptions.SocketIOError as error:
            self._tell(name, started, error)
            return None
        self._tell(name, started, None if answer["ok"] else RuntimeError(answer["error"]["code"]))
        data: dict[str, Any] | None = answer.get("data")
        return data

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

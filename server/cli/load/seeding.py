"""People made for a load test, with what they need: an account, a session, a token, a conversation."""

import secrets
from uuid import UUID, uuid4

from rules.conversations import ConversationKind
from rules.participants import ParticipantRole
from server.cli.load.circles import Circle, Someone, circles_of
from server.cli.load.options import CONNECT_S, Options
from server.cli.load.servers import check_token
from server.cli.operators import on_database
from server.commands.tokens import Tokens
from server.config import Config
from server.datafolder import secret
from server.errors import Invalid
from storage import Connection, Database, conversations, participants, rooms, sessions, users

BATCH = 200  # people of one transaction


def seed(config: Config, options: Options) -> list[Circle]:
    """Make people called load.<run>.<number>, sign them in, and let those who talk have a conversation.

    The database's schema is brought up to date before. Raises `Invalid` for a group that this server would not allow,
    `LoadFailed` where it does not know the first of them.
    """
    if options.group > config.group_people:
        raise Invalid({}, f"--groups {options.group}: PARLEY_GROUP_PEOPLE allows {config.group_people}.")
    keys = config.secrets or (secret(config.data),)
    tokens = Tokens(keys, access_ttl_s=config.access_ttl_s, refresh_ttl_s=config.refresh_ttl_s)
    return on_database(config, lambda database: _Seeding(database, tokens, options).all())


class _Seeding:
    def __init__(self, database: Database, tokens: Tokens, options: Options) -> None:
        self._database = database
        self._tokens = tokens
        self._options = options
        self._run = secrets.token_hex(4)
        self._made = 0
        self._ttl_s = int(options.seconds + CONNECT_S + options.drain) + 600

    async def all(self) -> list[Circle]:
        """Every circle, some of them in each transaction, when the servers are seen to know who is made here."""
        _, probe = await self._database.transaction(self._person)
        await check_token(self._options.urls, probe.token)
        made: list[Circle] = []
        waiting: list[tuple[str, int]] = []
        people = 0
        for shape, size in circles_of(self._options):
            waiting.append((shape, size))
            people += size
            if people >= BATCH:
                made += await self._batch(waiting)
                waiting, people = [], 0
        return made + await self._batch(waiting)

    async def _batch(self, wanted: list[tuple[str, int]]) -> list[Circle]:
        async def make(db: Connection) -> list[Circle]:
            return [await self._circle(db, shape, size) for shape, size in wanted]

        return await self._database.transaction(make)

    async def _circle(self, db: Connection, shape: str, size: int) -> Circle:
        made = [await self._person(db) for _ in range(size)]
        people = [someone for _, someone in made]
        if shape == "tables":  # an offer makes its own
            return Circle(shape, people)
        user_ids = [user_id for user_id, _ in made]
        chat = uuid4()
        kind = ConversationKind.PRIVATE if shape == "pairs" else ConversationKind.GROUP
        pair = (user_ids[0], user_ids[1]) if shape == "pairs" else None
        title = None if pair else f"Load test {self._run}"
        await conversations.create_conversation(db, chat, kind, created_by=user_ids[0], title=title, pair=pair)
        await rooms.create_room(db, chat, "conversation")
        role = ParticipantRole.MEMBER if pair else ParticipantRole.OWNER
        seats = [(user_id, ParticipantRole.MEMBER) for user_id in user_ids[1:]]
        await participants.create_participants(db, chat, [(user_ids[0], role), *seats])
        return Circle(shape, people, str(chat))

    async def _person(self, db: Connection) -> tuple[UUID, Someone]:
        name, number = f"load.{self._run}.{self._made}", self._made
        self._made += 1
        user_id = await users.create_user(db, username=name, email=f"{name}@example.invalid", password_hash=None)
        await rooms.create_room(db, user_id, "user")
        session = await sessions.create_session(db, user_id, device="parley load", address=None, ttl_s=self._ttl_s)
        token, _ = self._tokens.access(user_id, session, ttl_s=self._ttl_s)
        return user_id, Someone(token, number % len(self._options.urls))

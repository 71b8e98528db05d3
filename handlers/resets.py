"""Forgotten passwords: a token is mailed, and lets its holder choose another."""

from typing import Annotated

import msgspec

from handlers.accounts import Email, Password
from handlers.nothing import Done
from handlers.sessions import end_all
from server.commands.context import Context
from server.commands.registry import Limit, Payload, Transport, anyone, command
from server.commands.tokens import hash_stored_token, new_stored_token
from server.errors import Unauthenticated
from storage import Connection, resets, users
from storage.resets import Forgetful

RESET_TTL_S = 3_600


class Forgot(Payload, frozen=True):
    email: Email


@command(
    "account:forgot",
    allow=anyone,
    limit=Limit.LOGIN,
    further=(Limit.LOGIN_ACCOUNT,),
    transport=Transport.HTTP,
    transaction=False,
)
async def forgot(ctx: Context, p: Forgot) -> Done:
    """Have a token mailed that resets one's password. The answer is the same, and as quick, for any address."""
    ctx.take(Limit.LOGIN_ACCOUNT, ("forgot", p.email.lower()))
    token, stored = new_stored_token()

    async def remember(db: Connection) -> Forgetful | None:
        person = await resets.lock_person(db, p.email)
        if person is not None:
            await resets.create_reset(db, person.user_id, stored, RESET_TTL_S)
        return person

    async def send() -> None:
        person = await ctx.services.database.transaction(remember)
        if person is not None:
            await ctx.services.notifier.password_reset(person.email, person.username, token, person.locale)

    ctx.then(send)
    return Done()


class Reset(Payload, frozen=True):
    reset_token: Annotated[str, msgspec.Meta(min_length=1, max_length=200)]
    password: Password


@command("account:reset", allow=anyone, limit=Limit.LOGIN, transport=Transport.HTTP, transaction=False)
async def reset(ctx: Context, p: Reset) -> Done:
    """Choose another password by a token that was mailed. Every device is signed out; the token is spent."""
    password_hash = await ctx.services.passwords.hash(p.password, ctx.network)
    async with ctx.transaction():
        user_id = await resets.spend_reset(ctx.db, hash_stored_token(p.reset_token))
        if user_id is None:
            raise Unauthenticated("This reset token is spent, expired or unknown: ask for another.")
        await users.set_password(ctx.db, user_id, password_hash)
        await end_all(ctx, user_id, "password_reset")
    return Done()

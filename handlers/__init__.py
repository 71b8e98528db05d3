"""The domain: one module a noun, thin. Importing this package declares every command and push."""

from handlers import accounts, conversations, messages, participants, rooms

__all__ = ["accounts", "conversations", "messages", "participants", "rooms"]

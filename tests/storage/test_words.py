"""What was logged before matches, threads and listings were found by what they are about is found and blanked too."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from uuid import UUID, uuid4

import asyncpg
import pytest

from server.migrate import FOLDER, migrate

pytestmark = pytest.mark.both_postgres

BEFORE = 18  # migrations that had been applied when it was logged

LISTED = """
insert into listings (listing_id, user_id, kind, title, description, price_amount, price_currency, category, expires_at)
values ($1, $2, $3, 'x', '', 1, 'EUR', 'other', now())
"""
MATCHED = "insert into listing_matches (match_id, source_listing_id, matched_listing_id, score) values ($1, $2, $3, 90)"
LOGGED = "insert into room_events (room_id, seq, at, name, payload, message_id) values ($1, $2, now(), $3, $4, $5)"


async def test_the_log_of_before_is_brought_to_what_it_is_now(database: str, tmp_path: Path) -> None:
    older = tmp_path / "older"
    older.mkdir()
    for path in sorted(FOLDER.iterdir())[:BEFORE]:
        shutil.copy(path, older)
    await migrate(database, older)
    db = await asyncpg.connect(database)
    try:
        owner, other, wish, lamp, gone, match, lost, thread = (uuid4() for _ in range(8))
        for person in (owner, other):
            await db.execute("insert into users (user_id, username, email) values ($1, $2, $2)", person, str(person))
        await db.execute(LISTED, wish, owner, "wtb")
        await db.execute(LISTED, lamp, other, "for_sale")
        await db.execute(MATCHED, match, wish, lamp)

        def told(match_id: UUID, source: UUID, matched: UUID) -> str:
            sides = {"source_listing": source, "matched_listing": matched}
            listings = {side: {"listing_id": str(id_), "title": "words"} for side, id_ in sides.items()}
            return json.dumps({"match_id": str(match_id), **listings})

        opened = {"conversation_id": str(thread), "kind": "thread", "title": "words"}
        group = {"conversation_id": str(uuid4()), "kind": "group", "title": "words"}
        logged = [
            ("match:found", told(match, wish, lamp), lamp),
            ("match:found", told(lost, wish, gone), gone),
            ("listing:changed", json.dumps({"listing_id": str(gone), "title": "words"}), gone),
            ("listing:changed", json.dumps({"listing_id": str(lamp), "title": "words"}), lamp),
            ("conversation:created", json.dumps(opened), None),
            ("conversation:created", json.dumps(group), None),
            ("participant:added", json.dumps({"conversation_id": str(thread), "conversation": opened}), None),
        ]
        for seq, event in enumerate(logged, 1):
            await db.execute(LOGGED, owner, seq, *event)
        await migrate(database)
        owners = await db.fetchrow("select source_user_id, matched_user_id from listing_matches")
        assert tuple(owners) == (owner, other)
        rows = await db.fetch("select message_id, payload from room_events order by seq")
        assert [row["message_id"] for row in rows] == [match, wish, None, lamp, thread, None, thread]
        payloads = [json.loads(row["payload"]) for row in rows]
        assert [each["title"] for each in payloads[2:6]] == ["deleted", "words", "words", "words"]
        sides = [(each["source_listing"]["title"], each["matched_listing"]["title"]) for each in payloads[:2]]
        assert sides == [("words", "words"), ("words", "deleted")]
    finally:
        await db.close()

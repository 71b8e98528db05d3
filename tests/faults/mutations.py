"""What can be taken out of a server, or put in its place, and the fault that has to show it for each."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from tests.faults.processes import without
from tests.faults.rounds import Load, Round, faults, play
from tests.faults.stage import staged
from tests.servers import execute

TRIES = 5
LOAD = Load(people=16, chats=4, pause_s=0.01, before_s=0.3, during_s=None, after_s=0.0, patience_s=4.0)


@dataclass(frozen=True)
class Mutation:
    """A guarantee taken out, by a name that `tests.faults.broken` knows, or out of the database (`is_stored`)."""

    name: str
    fault: str
    kinds: frozenset[str]
    """As what it has to be found: the first words of the checker's lines."""
    is_stored: bool = False
    serves: tuple[str, str] | None = None
    """The module that serves without it, and its argument, where that is not `tests.faults.broken` with the name."""
    what: str = ""
    """In words, where the name does not say it."""

    @property
    def title(self) -> str:
        """What the page calls it."""
        return self.what or self.name.replace("_", " ")


RACING = ("tests.faults.racing", "without_locks")
STOCK = "order and repair, by python-socketio's stock Redis manager in the place of ours"
MUTATIONS = {
    f"{mutation.name} {mutation.fault}": mutation
    for mutation in (
        Mutation("ack_after_commit", "all_instances_killed", frozenset({"lost"})),
        Mutation("recognition_of_repeats", "sends_doubled", frozenset({"doubled"}), is_stored=True),
        Mutation("repair_of_gaps", "redis_killed", frozenset({"view", "turn"})),
        Mutation("comparison_with_postgresql", "redis_killed", frozenset({"view"})),
        Mutation("resuming", "reconnect_storm", frozenset({"reset"})),
        Mutation("one_epoch", "reconnect_storm", frozenset({"epoch"})),
        Mutation("row_locks", "instance_killed", frozenset({"offer", "law"}), serves=RACING, what="locks of offers"),
        Mutation("stock_redis_manager", "redis_killed", frozenset({"view"}), what=STOCK),
        Mutation("stock_redis_manager", "redis_partitioned", frozenset({"view"}), what=STOCK),
    )
}


async def forget_repeats(dsn: str) -> None:
    """Let the database store whatever comes, whether it has it already or not."""
    await execute(dsn, "alter table messages drop constraint messages_client_id_key")
    repeat = "when old.body_hmac = i.body_hmac then 'repeat'"
    key_reuse = "when old.message_id is not null then 'key_reuse'"
    await execute(dsn, await without(dsn, "append_messages", (repeat, ""), (key_reuse, "")))


async def caught(folder: Path, mutation: Mutation) -> tuple[Round, int]:
    """Play on servers without that guarantee until it shows, `TRIES` times at most: the last round, and its number."""
    module = None if mutation.is_stored else mutation.serves or ("tests.faults.broken", mutation.name)
    async with staged(folder, broken=module, afresh=mutation.serves is not None) as stage:
        if mutation.is_stored:
            await forget_repeats(stage.dsn)
        for tries in range(1, TRIES + 1):  # noqa: B007 (it is told)
            played = await play(stage, faults[mutation.fault], LOAD)
            if is_caught(played, mutation):
                break
    return played, tries


def is_caught(played: Round, mutation: Mutation) -> bool:
    """Whether what is found is what was taken out."""
    return bool(mutation.kinds & {line.partition(":")[0] for line in played.breaches})

"""How cost grows: `python -m bench.growth`.

Four questions, each asked of Parley with everything on, its PostgreSQL beside it:
what a delivery costs in rooms of 10 to 10,000 (10,000 sockets, messages one at a time, so that the cost of a send is
that of the send plus that of each delivery; what idle sockets take is taken off);
what a send costs in conversations of 1,000 to 1,000,000 messages;
what it costs while the instance watches 100 to 100,000 conversations;
and what 500 to 8,000 connections take of memory. The first three are to be flat within 20 %, the last a straight line.
Checked in each: every message acknowledged and delivered to each member once, in the room's order, without a gap.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from rich.console import Console
from rich.table import Table

from bench import pages
from bench.asking import Answer, ask_conversations, ask_memory, ask_messages, ask_rooms
from bench.machine import Cores
from bench.plots import draw
from bench.stage import run, staged

QUESTIONS = {"rooms": ask_rooms, "messages": ask_messages, "conversations": ask_conversations, "memory": ask_memory}


def main() -> int:
    """Ask what was asked for; 0 where all grows as it should."""
    options = _options()
    answers = []
    with staged(Cores.of_this_machine(), secs=options.secs) as stage:
        for name in options.questions:
            answers.append(QUESTIONS[name](stage, options.reps, quick=options.quick))
            _show(answers[-1])
    if options.write and all(answer.is_right for answer in answers):
        write(answers, f"python -m bench.growth --reps {options.reps} --secs {options.secs:g} --write")
    return 0 if all(answer.is_right and answer.holds for answer in answers) else 1


def _show(answer: Answer) -> None:
    table = Table(*answer.columns, title=answer.title, title_justify="left")
    for row in answer.rows:
        table.add_row(*row)
    console = Console(width=None if sys.stdout.isatty() else 140)
    console.print(table)
    console.print(f"{answer.verdict} {_checks(answer)}", markup=False)


def _checks(answer: Answer) -> str:
    return "Nothing was lost, doubled or out of order." if answer.is_right else "WRONG: messages were lost or doubled."


def write(answers: Sequence[Answer], command: str) -> None:
    """The plots, and the part of the page."""
    pages.write_picture("growth", draw([answer.panel for answer in answers]))
    parts = [
        "`python -m bench.growth --help` says how each is asked.",
        pages.shown("growth", "How cost grows: what was measured, and the line that it lies on"),
    ]
    for answer in answers:
        parts.append(f"### {answer.title}")
        parts.append(pages.table(answer.columns, answer.rows))
        parts.append(answer.verdict)
    pages.write_part("growth", command, "\n\n".join(parts))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m bench.growth", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--questions", default=",".join(QUESTIONS), help=f"which of {', '.join(QUESTIONS)} (all)")
    parser.add_argument("--reps", type=int, default=3, help="measurements of each size, in turn (3)")
    parser.add_argument("--secs", type=float, default=8.0, help="seconds of each (8)")
    parser.add_argument("--quick", action="store_true", help="once, a second each, of small sizes: does it work?")
    parser.add_argument("--write", action="store_true", help="write the plots, and the tables into docs/benchmarks.md")
    options = parser.parse_args()
    options.questions = [name.strip() for name in options.questions.split(",")]
    if unknown := set(options.questions) - QUESTIONS.keys():
        parser.error(f"there is no question {', '.join(sorted(unknown))}; there are {', '.join(QUESTIONS)}")
    if options.write and (options.quick or len(options.questions) < len(QUESTIONS)):
        parser.error("--write is for a whole run: leave out --quick and --questions")
    if not (1 <= options.reps <= 20 and 0.5 <= options.secs <= 120):
        parser.error("--reps is 1 to 20, --secs 0.5 to 120")
    if options.quick:
        options.reps, options.secs = 1, 1.0
    return options


if __name__ == "__main__":
    run(main)

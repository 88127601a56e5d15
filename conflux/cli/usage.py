"""`conflux usage`: how many bytes passed, of which kind and with whom, and how much of the budget that is."""

from __future__ import annotations

import argparse

from conflux.cli import context, show
from conflux.cli.observe import Answer, answered, describe_budget, print_blocks, print_json

PEER_COUNT_MAX = 12  # lines of the table; --json has all
KINDS = {
    "data": "data",
    "control": "messages",
    "set-up": "opening",
    "keep-alive": "keeping open",
}
WHO = {
    "broker": "the broker",
    "multicast": "the LAN (mDNS)",
    "unknown": "unknown",
    "others": "others",
}


def usage(options: argparse.Namespace) -> int:
    """Print what passed."""
    got = answered(context.daemon(options).look("usage"))
    if options.json:
        return print_json(got)
    return print_blocks(*describe_usage(got, columns=show.columns()))


def describe_usage(got: Answer, *, columns: int = 80) -> list[str]:
    """Return the blocks of `conflux usage`: the sums, the kinds, who was at the other end, and the budget."""
    today, month = got["today"], got["month"]
    rows: list[tuple[str, object]] = [
        (_since("today", today["date"]), _both(today)),
        (_since("this month, since", month["date"]), _both(month)),
        ("budget", describe_budget(got["budget"])),
    ]
    if got["undated_bytes"]:
        rows.append(("no date", f"{show.size(got['undated_bytes'])} of it: this board does not know the date yet"))
    kinds = [
        (
            KINDS.get(of_today["kind"], of_today["kind"]),
            show.size(_sum(of_today)),
            show.size(of_month["sent_bytes"]),
            show.size(of_month["received_bytes"]),
            show.size(_sum(of_month)),
        )
        for of_today, of_month in zip(today["kinds"], month["kinds"], strict=True)
    ]
    peers = [
        (_who(each), show.size(each["today_bytes"]), show.size(each["month_bytes"]))
        for each in got["peers"][:PEER_COUNT_MAX]
    ]
    left = got["peers"][PEER_COUNT_MAX:]
    if left:
        sums = (sum(each[key] for each in left) for key in ("today_bytes", "month_bytes"))
        today_bytes, month_bytes = sums
        peers.append((f"{len(left)} more", show.size(today_bytes), show.size(month_bytes)))
    return [
        show.fields(rows, columns=columns),
        show.table(("for", "today", "month: sent", "received", "both"), kinds, columns=columns),
        show.table(("with", "today", "month"), peers, columns=columns) if peers else "",
    ]


def _since(word: str, date: str | None) -> str:
    return word.partition(",")[0] if date is None else f"{word} {date}"


def _both(span: Answer) -> str:
    sent, received = span["sent_bytes"], span["received_bytes"]
    return f"{show.size(sent + received)}: {show.size(sent)} sent, {show.size(received)} received"


def _sum(row: Answer) -> int:
    return int(row["sent_bytes"] + row["received_bytes"])


def _who(peer: Answer) -> str:
    return str(peer["name"]) if peer["node"] is not None else WHO.get(peer["name"], str(peer["name"]))

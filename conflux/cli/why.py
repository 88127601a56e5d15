"""`conflux why NAME`: in one paragraph, how a node is reached or why it is not."""

from __future__ import annotations

import argparse
import shutil
import sys
import textwrap
import time
from typing import Any

from conflux.cli import context, show
from conflux.cli.observe import answered, print_json
from conflux.shell.words import phrase, way

Answer = dict[str, Any]

TRIED_COUNT_MAX = 4  # paths in the paragraph; the JSON has all that are remembered
REASON_COUNT_MAX = 3  # paths in one line
WIDTH_MAX = 80


def why(options: argparse.Namespace) -> int:
    """Explain one node; the exit code is 1 if there is no such node, or none that can be reached as a member."""
    got = answered(context.daemon(options).call("why", name=options.name, **_flow(options)))
    if options.json:
        print_json(got)
    else:
        width = min(WIDTH_MAX, shutil.get_terminal_size().columns)
        sys.stdout.write(textwrap.fill(paragraph(got, time.time()), width, break_on_hyphens=False) + "\n")
    return 1 if got["verdict"] in _NO_MEMBERS else 0


_NO_MEMBERS = ("unknown", "expired", "revoked", "own-expired", "own-revoked")


# ── one line ──


def describe_reason(got: Answer, now: float | None = None) -> str:
    """Return why packets to a node are not answered, in one line.  now: Unix seconds."""
    at = time.time() if now is None else now
    name, verdict = _name(got), got["verdict"]
    if verdict in _NO_MEMBERS:
        return _no_member(got, at)
    if got["left_at"] is not None:
        relayed = [_failure(row) for row in got["tried"] if row["failure"] is not None and len(row["path"]) > 1]
        return "; ".join([f"{name} left the LAN {_ago(got['left_at'], at)}", *relayed[:REASON_COUNT_MAX]])
    if verdict == "silent" and got["path"] is not None:
        return f"{name}: packets go {way(got['path'])}, and nothing comes back"
    if verdict == "flowing":
        return f"{name}: packets go {way(got['path'])} and arrive; a firewall on conflux0 there may drop them"
    return f"{name}: {'; '.join(_failures(got)) or 'no path to it is known'}"


def _failures(got: Answer) -> list[str]:
    """Return what became of each path that does not carry, relayed ones first, or why no stream is agreed."""
    failed = [row for row in got["tried"] if row["outcome"] in ("failed", "lost", "unanswered", "trying")]
    failed.sort(key=lambda row: len(row["path"]) == 1)
    texts = [_failure(row) for row in failed[:REASON_COUNT_MAX]]
    if got["handshake"] is not None and all(row["failure"] is None for row in failed):
        texts.append(_said(got["handshake"]))
    return texts


def _failure(row: Answer) -> str:
    """Return "direct: attic does not answer (dial: no-answer)"; a single relay that is named says its way itself."""
    if row["failure"] is None:
        waited = "yet" if row["waited_s"] is None else f"for {_span(row['waited_s'])}"
        return f"{way(row['path'])}: no answer {waited}"
    text = _said(row["failure"])
    relays = row["path"][:-1]
    is_named = len(relays) == 1 and text.startswith(f"{relays[0]} ")
    return text if is_named else f"{way(row['path'])}: {text}"


def _said(failure: Answer) -> str:
    return phrase(failure["step"], failure["reason"], failure["said"], failure["who"])


def _no_member(got: Answer, now: float) -> str:
    """Return why a word means no node that could be reached."""
    name, date = _name(got), got["realm_at"]
    match got["verdict"]:
        case "expired":
            return f"{name}: its credential ended {_ago(got['expires_at'], date)}"
        case "revoked":
            why = "" if got["because"] in (None, "revoked") else f" ({got['because']})"
            return f"{name} was revoked{why} {_ago(got['revoked_at'], date)}"
        case "own-expired":
            return f"this node's own credential ended {_ago(got['expires_at'], date)}, so no other node answers it"
        case "own-revoked":
            return "this node was revoked, so no other node answers it"
    if got["left_at"] is not None:
        return f"{name} left the LAN {_ago(got['left_at'], now)}"
    alone = "" if got["neighbours"] or got["broker"] else "; this node has no neighbour and no broker"
    return f"no node of this realm answers to '{got['asked']}'{alone}"


def _flow(options: argparse.Namespace) -> dict[str, str]:
    return {} if options.flow is None else {"flow": options.flow}


# ── the paragraph ──


def paragraph(got: Answer, now: float) -> str:
    """Return everything that is known of a node, in plain sentences.  now: Unix seconds."""
    if got["verdict"] in _NO_MEMBERS:
        ask = " Is it running, and is the name right?" if got["verdict"] == "unknown" else ""
        return _sentence(_no_member(got, now), _name(got)) + ask
    sentences = [*_ruled(got), *_known(got, now), _present(got, now), *_tried(got, now), *_next(got, now)]
    return " ".join(_sentence(text, _name(got)) for text in sentences)


def _ruled(got: Answer) -> list[str]:
    """Return what the policy says of the flow that was asked for."""
    ruled = got.get("ruled")
    if ruled is None:
        return []
    there, here = (_by(ruled[end]) for end in ("there", "here"))
    flow, number, name = ruled["flow"], ruled["number"], _name(got)
    return [f"policy {number}: {flow} to {name} {there}; from {name} it {here}"]


def _by(ruled: Answer) -> str:
    if not ruled["allowed"]:
        return "may not begin, as no rule allows it"
    return "may begin, by the default" if ruled["rule"] is None else f'may begin, by the rule "{ruled["rule"]}"'


def _known(got: Answer, now: float) -> list[str]:
    name, texts = _name(got), []
    for source in got["sources"]:
        at = source["at"]
        match source["by"]:
            case "lan":
                texts.append(f"a neighbour on the LAN at {source['address']}, for {_span(now - at)}")
            case "behind":
                texts.append(f"behind {source['via']}, which brought its last message {_ago(at, now)}")
            case "broker":
                texts.append(f"known over the broker, heard {_ago(at, now)}")
            case _:
                texts.append("known by its card" + ("" if at is None else f", heard {_ago(at, now)}"))
    sentences = [f"{name} is {', and '.join(texts)}"]
    if got["left_at"] is not None:
        sentences.append(f"it left the LAN {_ago(got['left_at'], now)}")
    if got["restarted_at"] is not None:
        sentences.append(f"it restarted {_ago(got['restarted_at'], now)}")
    return sentences


def _present(got: Answer, now: float) -> str:
    path = got["path"]
    by = "" if path is None else way(path)
    match got["verdict"]:
        case "flowing":
            trip = "" if got["rtt_ms"] is None else f", {show.milliseconds(got['rtt_ms'])} there and back"
            return f"packets flow {by}{trip}"
        case "silent":
            return f"packets go {by}, and nothing comes back"
        case "opening":
            ways = [way(each) for each in got["trying"]]
            trying = f": {' and '.join(ways)}" if ways else ""
            return f"a way is being opened{trying}" if path is None else f"packets go {by} while its answer is awaited"
        case "retrying":
            return "no way was found, and packets wait for the next try"
        case "given-up":
            return "no way was found, and packets are refused for now"
        case _:
            return "nothing is sent there, so nothing is open"


def _tried(got: Answer, now: float) -> list[str]:
    sentences = []
    for row in got["tried"][:TRIED_COUNT_MAX]:
        text = way(row["path"])
        if row["failure"] is not None and row["outcome"] == "trying":
            sentences.append(f"{text} failed before: {_said(row['failure'])}")
        elif row["failure"] is not None:
            verb = "was lost" if row["outcome"] == "lost" else "failed"
            sentences.append(f"{text} {verb} {_ago(row['at'], now)}: {_said(row['failure'])}")
        elif row["outcome"] == "unanswered":
            sentences.append(f"{text} had no answer for {_span(row['waited_s'])}, until {_ago(row['at'], now)}")
        elif row["outcome"] == "left":
            sentences.append(f"{text} was tried {_ago(row['at'], now)} and not needed")
        elif row["outcome"] == "carried" and row["path"] != got["path"]:
            sentences.append(f"{text} carried packets {_ago(row['at'], now)}")
    if got["handshake"] is not None:
        sentences.append(f"no stream was agreed: {_said(got['handshake'])}")
    return sentences


def _next(got: Answer, now: float) -> list[str]:
    coming = got["next"]
    if coming is None:
        return []
    at = None if coming["at"] is None else max(0.0, coming["at"] - now)
    when = "at once" if at is None or at < 1 else f"in {_span(at)}"
    match coming["kind"]:
        case "retry":
            return [f"the next try is {when}"]
        case "path":
            return [f"another path is tried beside it {when}"]
        case "direct":
            return [f"the direct path is tried again {when}"]
    waits = at is not None and at >= 1
    return [f"packets are taken again {when}" if waits else "the next packet opens a way"]


def _name(got: Answer) -> str:
    return str(got["name"] or got["asked"])


def _ago(at: float, now: float) -> str:
    return "just now" if now - at < 1 else f"{_span(now - at)} ago"


def _span(seconds: float) -> str:
    return str(show.duration(seconds))


def _sentence(text: str, name: str = "") -> str:
    """Return text as a sentence; the name of a node stays as it is."""
    begins = bool(name) and text.startswith(name)
    return (text if begins else text[:1].upper() + text[1:]) + "."

"""What is written on the card for a person: first-boot.log.  And what is taken off it: a token that was used."""

from __future__ import annotations

import datetime
import time
from collections.abc import Callable, Sequence

from conflux.board.daemon_file import without_token
from conflux.board.files import LOG, Fat, read, write
from conflux.board.places import Places


def forget(places: Places, fat: Fat | None, token: str | None) -> None:
    """Erase a token that was used, from the card and from the daemon's configuration.  Raises OSError."""
    text = (read(places.configuration) or b"").decode("utf-8", "replace")
    used = token or _configured(text)
    if used is not None and used in text:
        write(places.configuration, without_token(text, used).encode())
    if fat is not None:
        fat.erase(token or used)


def _configured(text: str) -> str | None:
    import tomli

    try:
        token = tomli.loads(text).get("realm", {}).get("token")
    except (ValueError, AttributeError, RecursionError):
        return None
    return token if isinstance(token, str) and token.startswith("cfx1") else None


def write_log(
    places: Places, fat: Fat | None, notices: Sequence[str], *, clock: Callable[[], float] = time.time
) -> None:
    """Write first-boot.log on the card, if it says anything new but the date.  Raises OSError."""
    if fat is None:
        return
    report = (read(places.run / "report") or b"").decode("utf-8", "replace")
    wrong = "".join(f"  {line}\n" for line in notices) or "  nothing\n"
    body = f"{report}\nTo be looked at:\n{wrong}"
    before = (fat.read(LOG) or b"").decode("utf-8", "replace").replace("\r\n", "\n")
    if before.partition("\n\n")[2] == body:
        return
    date = datetime.datetime.fromtimestamp(clock(), datetime.UTC).strftime("%Y-%m-%d %H:%M UTC")
    head = f"What this board made of its card.  Written {date}, by a clock that may be wrong; changed only with news."
    fat.write(LOG, f"{head}\n\n{body}".encode())

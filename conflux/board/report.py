"""What is written on the card for a person: first-boot.log.  And what is taken off it: a token that was used."""

from __future__ import annotations

import datetime
import time
from collections.abc import Callable, Sequence
from typing import Final

from conflux.board.daemon_file import without_token
from conflux.board.files import LOG, Fat, read, write
from conflux.board.places import Places

UNERASED: Final = (
    "conflux.toml: board.token was used, and cannot be erased as it is written there: delete that line yourself"
)


def forget(places: Places, fat: Fat | None, token: str | None) -> str | None:
    """Erase a token that was used, from the card and from the daemon's configuration.

    token: None: the one of the configuration, if there is one.  Return the token, if the card still says it to who
    reads it: it may be written with escapes, or over two lines.  Raises OSError.
    """
    text = (read(places.configuration) or b"").decode("utf-8", "replace")
    used = token or _configured(text)
    if used is not None and used in text:
        write(places.configuration, without_token(text, used).encode(), 0o600)
    if fat is not None:
        fat.erase(used)
    return used if used is not None and token_on(fat) == used else None


def token_on(fat: Fat | None) -> str | None:
    """Return the invitation on the card, as first boot reads it; None: there is none, or it was used."""
    from conflux.board.card import NAME, read_untrusted  # not loaded for as long as the watch needs none of it
    from conflux.board.settle import token_of

    data = None if fat is None else fat.read(NAME)
    return None if data is None else token_of(read_untrusted(data))


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

"""Fetches a bundle by HTTP.  Nothing about the server is trusted: who signed the bundle is what counts."""

from __future__ import annotations

import http.client
import os
import shutil
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO, Final
from urllib.parse import urlsplit

from conflux.errors import UserError, words_of

BUNDLE_BYTES_MAX: Final = 640 * 1024 * 1024  # both slots' partitions together
SILENCE_S: Final = 30.0
CHUNK_BYTES: Final = 1 << 18
SCHEMES: Final = ("http", "https")
SPARE_BYTES: Final = 16 * 1024 * 1024  # of the data partition, for whatever else is on it

Tell = Callable[[int, str], None]
"""Takes percent, and words."""


def is_url(text: str) -> bool:
    """Say whether a person's word is the address of a bundle rather than the name of a file."""
    return text.partition("://")[0].lower() in SCHEMES and "://" in text


def fetch(url: str, place: Path, tell: Tell) -> None:
    """Write what is at a URL to place, completely or not at all.  Raises UserError."""
    half = place.with_name(f".{place.name}.part")
    try:
        place.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with _opener().open(url, timeout=SILENCE_S) as answer, half.open("wb") as file:
            _copy(answer, file, place.parent, tell)
        half.replace(place)
    except urllib.error.HTTPError as error:
        error.close()
        pointed = ", and points to where no bundle is fetched from: it is not followed" if error.code < 400 else ""
        raise UserError(f"{url}: the server says {error.code}{pointed}") from None
    except urllib.error.URLError as error:
        said = words_of(error.reason) if isinstance(error.reason, OSError) else str(error.reason)
        raise UserError(f"{url}: {said}") from None
    except http.client.HTTPException as error:
        raise UserError(f"{url}: the connection broke off ({type(error).__name__})") from None
    except OSError as error:
        raise UserError(f"{url}: {words_of(error)}") from None
    finally:
        half.unlink(missing_ok=True)


def _copy(answer: http.client.HTTPResponse, file: BinaryIO, folder: Path, tell: Tell) -> None:
    """Copy an answer to a file, within what a bundle and the disk may take.  Raises UserError."""
    announced = answer.headers.get("Content-Length", "")
    length = int(announced) if announced.isascii() and announced.isdigit() and len(announced) < 16 else None
    room = min(BUNDLE_BYTES_MAX, shutil.disk_usage(folder).free - SPARE_BYTES)
    count = 0
    while chunk := answer.read(CHUNK_BYTES):
        count += len(chunk)
        if max(count, length or 0) > room:
            what = "larger than any bundle" if room == BUNDLE_BYTES_MAX else f"no room for it in {folder}"
            raise UserError(f"{answer.url}: {what}")
        file.write(chunk)
        if length:
            tell(min(100, 100 * count // length), "fetching")
    if length is not None and count < length:
        raise UserError(f"{answer.url}: the connection broke off after {count} of {length} bytes")
    file.flush()
    os.fsync(file.fileno())


class _Redirects(urllib.request.HTTPRedirectHandler):
    """Follows to HTTP alone, and never from https to http."""

    def redirect_request(self, req, fp, code, msg, headers, newurl):  # type: ignore[no-untyped-def]
        """Return the request for where an answer points to.  Raises URLError if that is nowhere to go."""
        scheme = urlsplit(newurl).scheme
        fp.close()  # urllib would read the answer's body, however long it is
        if scheme not in SCHEMES or (scheme == "http" and req.type == "https"):
            raise urllib.error.URLError(f"the server points to {newurl[:200]!r}, which is not followed")
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _opener() -> urllib.request.OpenerDirector:
    opener = urllib.request.OpenerDirector()
    for handler in (
        urllib.request.ProxyHandler,
        urllib.request.HTTPHandler,
        urllib.request.HTTPSHandler,
        urllib.request.HTTPDefaultErrorHandler,
        urllib.request.HTTPErrorProcessor,
        _Redirects,
    ):
        opener.add_handler(handler())
    return opener

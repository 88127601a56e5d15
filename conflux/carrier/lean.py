"""Loads the parts of aiortc that carry data channels, without the media code and the DNS library behind them.

`import aiortc` runs the package's __init__, which imports media code and with it PyAV; aioice imports a DNS library for
peers that hide their address behind a multicast DNS name.  Together that is two thirds of the memory and of the time.
Here the submodules are imported one by one under a bare package object, and three modules have stand-ins while the
import runs:

    av            one type, named in an annotation of aiortc.rtp
    pylibsrtp     names SRTP's profiles, which DTLS then offers as ever; packets of media are dropped
    aioice.mdns   tells names from addresses itself; resolving a name loads the real module

PyAV and pylibsrtp, each with megabytes of libraries of its own, need not be installed at all: packages leave them out.

Afterwards no stand-in and no bare package is left in sys.modules.  So a later `import aiortc` elsewhere runs the real
__init__ over the same submodules and works as usual, but for audio and video.
"""

from __future__ import annotations

import importlib
import importlib.util
import logging
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any

_SUBMODULES = (
    "rtcconfiguration",
    "rtcicetransport",
    "rtcdtlstransport",
    "rtcdatachannel",
    "rtcsctptransport",
)
_MDNS_HOSTNAME = re.compile(r"[a-zA-Z0-9-]{1,63}\.local")


class _AudioFrame:
    """Stands for av.AudioFrame."""


class _SrtpError(Exception):
    """Stands for pylibsrtp.Error; never raised."""


class _Policy:
    """Stands for pylibsrtp.Policy: the numbers of libsrtp that aiortc.rtcdtlstransport names."""

    SRTP_PROFILE_AES128_CM_SHA1_80 = 1
    SRTP_PROFILE_AEAD_AES_128_GCM = 7
    SRTP_PROFILE_AEAD_AES_256_GCM = 8
    SSRC_ANY_INBOUND = 2
    SSRC_ANY_OUTBOUND = 3

    def __init__(self, **fields: object) -> None:
        """Take what a policy of libsrtp has; nothing asks for it."""


class _Session:
    """Stands for pylibsrtp.Session; false, so that aiortc drops packets of media as it does before there is one."""

    def __init__(self, policy: _Policy) -> None:
        """Keep nothing of the policy, and of the keys in it."""

    def __bool__(self) -> bool:
        return False


class _MDnsProtocol:
    """Stands for aioice.mdns.MDnsProtocol in annotations; never made."""


def _is_mdns_hostname(name: str) -> bool:
    return _MDNS_HOSTNAME.fullmatch(name) is not None


async def _create_mdns_protocol(*args: Any, **kwargs: Any) -> Any:
    return await importlib.import_module("aioice.mdns").create_mdns_protocol(*args, **kwargs)


def load() -> None:
    """Import aiortc's data-channel modules; afterwards `from aiortc.rtcsctptransport import ...` costs nothing.

    Raises ImportError, which says what was missing, if aiortc or aioice is laid out in another way than expected.
    """
    if "aiortc.rtcsctptransport" in sys.modules:
        return
    if "aiortc" in sys.modules:  # all of it is loaded already; there is nothing to save
        importlib.import_module("aiortc.rtcsctptransport")
        return
    logging.getLogger("aiortc").addHandler(logging.NullHandler())  # as its __init__ does
    av = _module("av", AudioFrame=_AudioFrame)
    srtp = _module("pylibsrtp", Policy=_Policy, Session=_Session, Error=_SrtpError)
    mdns = _module(
        "aioice.mdns",
        is_mdns_hostname=_is_mdns_hostname,
        create_mdns_protocol=_create_mdns_protocol,
        MDnsProtocol=_MDnsProtocol,
    )
    try:
        with _stand_in(mdns), _stand_in(av), _stand_in(srtp), _stand_in(_bare_package("aiortc")):
            for name in _SUBMODULES:
                importlib.import_module(f"aiortc.{name}")
    except (ImportError, AttributeError) as error:
        # Half a package would break the next import of it.
        for name in [name for name in sys.modules if name.startswith(("aiortc.", "aioice"))]:
            del sys.modules[name]
        raise ImportError(f"aiortc is not laid out as in version 1.16, for which this was written: {error}") from error
    if getattr(sys.modules.get("aioice"), "mdns", None) is mdns:
        del sys.modules["aioice"].mdns


def _module(name: str, **attributes: object) -> ModuleType:
    module = ModuleType(name, "Stands in while conflux.carrier.lean imports.")
    vars(module).update(attributes)
    return module


def _bare_package(name: str) -> ModuleType:
    """Return a package object under which submodules can be found, with nothing of its __init__ run."""
    spec = importlib.util.find_spec(name)
    if spec is None or spec.submodule_search_locations is None:
        raise ImportError(f"{name} is not installed", name=name)
    return _module(name, __path__=list(spec.submodule_search_locations), __spec__=spec)


@contextmanager
def _stand_in(module: ModuleType) -> Iterator[None]:
    """Have module importable under its name, unless the real one is loaded already."""
    if module.__name__ in sys.modules:
        yield
        return
    sys.modules[module.__name__] = module
    try:
        yield
    finally:
        del sys.modules[module.__name__]

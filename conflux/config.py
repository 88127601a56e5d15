"""conflux.toml: what may stand in it, what it means when it does not, and precise words for what is wrong.

Every key is one field below: its default, the check that refuses a bad value, and the text that
docs/configuration.md repeats.  Nothing here reads the environment or touches the network.
"""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, TypeVar, get_type_hints

import tomli

from conflux.carrier.server import IceServer
from conflux.config_source import Source
from conflux.config_value import (
    Refused,
    addresses,
    boolean,
    choice,
    device_name,
    directory,
    ice_servers,
    integer,
    interface_names,
    node_name,
    seconds,
    socket_path,
    token,
)
from conflux.errors import ConfigError

PATH_DEFAULT = Path("/etc/conflux/conflux.toml")
STATE_DIR_DEFAULT = Path("/var/lib/conflux")
FILE_BYTES_MAX = 65536  # a full file with every comment is about 4 kB
SOCKET_NAME = "conflux.sock"

S = TypeVar("S")


@dataclass(frozen=True, slots=True)
class Key:
    """What a field of a section means: its check, and its line in the documentation."""

    check: Callable[[object], Any]
    text: str


@dataclass(frozen=True, slots=True)
class NodeSettings:
    """[node]"""

    name: Annotated[
        str | None,
        Key(node_name, "Name asked for when joining a realm. Not set: the host name."),
    ] = None
    state_dir: Annotated[Path, Key(directory, "Where keys and credentials are kept (mode 0700).")] = STATE_DIR_DEFAULT
    log_level: Annotated[str, Key(choice("debug", "info", "warning", "error"), "How much the log says.")] = "info"
    nice: Annotated[int, Key(integer(-20, 19), "Nice value of the daemon, if it may choose one.")] = -10


@dataclass(frozen=True, slots=True)
class RealmSettings:
    """[realm]"""

    token: Annotated[
        str | None,
        Key(token, "An invitation: a node that is in no realm yet joins with it at its first `conflux up`."),
    ] = dataclasses.field(default=None, repr=False)  # it admits to the realm: kept out of logs


@dataclass(frozen=True, slots=True)
class TunSettings:
    """[tun]"""

    name: Annotated[str, Key(device_name, "Name of the TUN device.")] = "conflux0"
    mtu: Annotated[int, Key(integer(1280, 65000), "Largest IP packet on the device, bytes.")] = 4000
    ipv4: Annotated[bool, Key(boolean, "Give the device the node's IPv4 address too, if it has one.")] = True


@dataclass(frozen=True, slots=True)
class DatapathSettings:
    """[datapath]"""

    name: Annotated[
        str,
        Key(
            choice("native", "reference"),
            "What moves packets: `native`, compiled, or `reference`, slow and readable, to compare with.",
        ),
    ] = "native"


@dataclass(frozen=True, slots=True)
class LanSettings:
    """[control.lan]"""

    enabled: Annotated[bool, Key(boolean, "Use the LAN control channel.")] = True
    port: Annotated[int, Key(integer(1024, 65535), "TCP port that neighbours connect to.")] = 7464
    interfaces: Annotated[
        tuple[str, ...], Key(interface_names, "Network interfaces to use; none named: all of them.")
    ] = ()
    mdns: Annotated[bool, Key(boolean, "Find neighbours by mDNS, and be found.")] = True
    peers: Annotated[
        tuple[tuple[str, int], ...],
        Key(addresses, 'Neighbours to connect to without mDNS: "host:port" or "[ipv6]:port".'),
    ] = ()


@dataclass(frozen=True, slots=True)
class ControlSettings:
    """[control]"""

    lan: LanSettings = LanSettings()


@dataclass(frozen=True, slots=True)
class StreamSettings:
    """[stream]"""

    idle_timeout: Annotated[float, Key(seconds(1, 3600), "A stream without packets ends after this many seconds.")] = (
        15.0
    )
    queue_bytes: Annotated[
        int,
        Key(
            integer(65536, 1 << 26),
            "Bytes of packets that may wait for one destination, up to four times as many where those leave in 50 ms; "
            "more are dropped.",
        ),
    ] = 1 << 20
    queue_age: Annotated[
        float, Key(seconds(0.5, 60), "A packet that waits this many seconds for a way to its destination is dropped.")
    ] = 10.0


@dataclass(frozen=True, slots=True)
class LinkSettings:
    """[link]"""

    ice_servers: Annotated[
        tuple[IceServer, ...],
        Key(ice_servers, "STUN and TURN servers; none by default, and none is needed on a LAN."),
    ] = ()
    dial_count_max: Annotated[int, Key(integer(1, 256), "Links being dialled at the same moment.")] = 8
    dial_timeout: Annotated[
        float, Key(seconds(1, 120), "A dial that has not connected after this many seconds has failed.")
    ] = 10.0
    linger: Annotated[float, Key(seconds(0, 300), "A link that nothing uses stays open for this many seconds.")] = 2.0


@dataclass(frozen=True, slots=True)
class RelaySettings:
    """[relay]"""

    enabled: Annotated[bool, Key(boolean, "Pass frames of other nodes on, if the credential allows it.")] = True
    bytes_per_s: Annotated[
        int | None,
        Key(integer(10_000, 10_000_000_000), "Bytes passed on per second for one neighbour. Not set: no bound."),
    ] = None


@dataclass(frozen=True, slots=True)
class ApiSettings:
    """[api]"""

    socket: Annotated[
        Path | None,
        Key(socket_path, f"Unix socket of the command line. Not set: `{SOCKET_NAME}` in the state directory."),
    ] = None


@dataclass(frozen=True, slots=True)
class Config:
    """The whole file."""

    node: NodeSettings = NodeSettings()
    realm: RealmSettings = RealmSettings()
    tun: TunSettings = TunSettings()
    datapath: DatapathSettings = DatapathSettings()
    control: ControlSettings = ControlSettings()
    stream: StreamSettings = StreamSettings()
    link: LinkSettings = LinkSettings()
    relay: RelaySettings = RelaySettings()
    api: ApiSettings = ApiSettings()

    @property
    def socket(self) -> Path:
        """Where the daemon's socket is."""
        return self.api.socket or self.node.state_dir / SOCKET_NAME

    def with_state_dir(self, state_dir: Path) -> Config:
        """Return the same with another state directory."""
        return dataclasses.replace(self, node=dataclasses.replace(self.node, state_dir=state_dir))


def load(path: Path | None) -> Config:
    """Return the configuration in path; None: in the usual place, or the defaults if nothing is there.

    Raises ConfigError naming the file, the line and what is expected there.
    """
    if path is None:
        try:
            return load(PATH_DEFAULT) if PATH_DEFAULT.exists() else Config()
        except PermissionError as error:
            raise ConfigError(f"cannot read {PATH_DEFAULT}: {error.strerror}") from None
    try:
        with path.open("rb") as file:
            data = file.read(FILE_BYTES_MAX + 1)
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error.strerror}") from None
    if len(data) > FILE_BYTES_MAX:
        raise ConfigError(f"{path}: larger than {FILE_BYTES_MAX} bytes")
    try:
        text = data.decode("utf-8-sig")  # editors on the other side of a FAT partition like to add the mark
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise ConfigError(f"{path}:{line}: not UTF-8 text") from None
    return parse(text, name=str(path))


def parse(text: str, *, name: str = "conflux.toml") -> Config:
    """Return the configuration that text describes.  Raises ConfigError; name is how the file is called in it."""
    try:
        table = tomli.loads(text)
    except tomli.TOMLDecodeError as error:
        said = error.msg[:1].lower() + error.msg[1:]
        raise ConfigError(f"{name}:{error.lineno}: {said} (column {error.colno})") from None
    except (ValueError, RecursionError) as error:  # limits: of the digits of a number, of nesting
        raise ConfigError(f"{name}: {error}") from None
    return _build(Config, table, (), Source(name, text))


def every_key() -> Iterator[tuple[str, object, Key]]:
    """Yield every key there is as ("section.key", its default, its Key), in the order of the documentation."""
    yield from _keys(Config(), ())


def _keys(section: object, path: tuple[str, ...]) -> Iterator[tuple[str, object, Key]]:
    for name, shape in _shape(type(section)).items():
        default = getattr(section, name)
        if isinstance(shape, Key):
            yield ".".join((*path, name)), default, shape
        else:
            yield from _keys(default, (*path, name))


def _shape(section: type) -> dict[str, Key | type]:
    """Return what each key of a section holds: a value with its Key, or a section of its own."""
    hints = get_type_hints(section, include_extras=True)
    return {name: hint.__metadata__[0] if hasattr(hint, "__metadata__") else hint for name, hint in hints.items()}


def _build(section: type[S], table: Mapping[str, object], path: tuple[str, ...], source: Source) -> S:
    """Return section filled from table, which stands at path."""
    shapes = _shape(section)
    values: dict[str, Any] = {}
    for key, value in table.items():
        here = (*path, key)
        shape = shapes.get(key)
        if shape is None:
            raise source.error(here, _unknown(key, path, list(shapes)))
        if isinstance(shape, Key):
            try:
                values[key] = shape.check(value)
            except Refused as refused:
                raise source.error(here, f"{'.'.join(here)} {refused}") from None
        elif isinstance(value, dict):
            values[key] = _build(shape, value, here, source)
        else:
            raise source.error(here, f"{key!r} is a table: write [{'.'.join(here)}]")
    return section(**values)


def _unknown(key: str, path: tuple[str, ...], known: list[str]) -> str:
    where = f"in [{'.'.join(path)}]" if path else "at the top level"
    close = difflib.get_close_matches(key, known, n=1)
    hint = f"did you mean {close[0]!r}?" if close else f"known: {', '.join(known)}"
    return f"unknown key {key!r} {where}; {hint}"

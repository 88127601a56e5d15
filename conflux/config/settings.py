"""conflux.toml: its keys, their defaults, and precise errors for what is wrong in a file.

Every key is one field below: its default, the check that refuses a bad value, and the text that
docs/reference/configuration.md repeats.  Nothing here reads the environment or touches the network.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, NamedTuple, TypeVar, get_type_hints

from conflux.carrier.ice.server import IceServer
from conflux.config import place
from conflux.config.checks import (
    Refused,
    addresses,
    area,
    boolean,
    broker_servers,
    choice,
    device_name,
    directory,
    file,
    host_names,
    ice_servers,
    integer,
    interface_names,
    node_name,
    page_places,
    seconds,
    size,
    socket_path,
    token,
)
from conflux.config.place import FILE_BYTES_MAX, SOCKET_NAME
from conflux.errors import ConfigError
from conflux.ids import LAN_PORT

PATH_DEFAULT = Path(place.FILE)
STATE_DIR_DEFAULT = Path(place.STATE_DIR)
SOCKET_DEFAULT = Path(place.SOCKET)
BROKEN_LINE_COUNT_MAX = 64  # a text with more is none of ours, and each costs a look at the whole

S = TypeVar("S")


class Wrong(NamedTuple):
    """What is wrong at a path of keys."""

    path: tuple[str, ...]
    text: str


class Key(NamedTuple):
    """A key of a section: the check of its value, and its line in the documentation.

    live: a daemon that runs takes a new value at a reload.  secret: no command shows the value.
    """

    check: Callable[[object], Any]
    text: str
    live: bool = False
    secret: bool = False


class Fault(NamedTuple):
    """One thing that is wrong in a file.  line: from 1; None: of the file as a whole."""

    line: int | None
    text: str


class Valued(NamedTuple):
    """A key with the value that counts, as JSON has it.  line: where the file sets it; None: it is the default."""

    key: str
    value: object
    line: int | None
    is_live: bool


class NodeSettings(NamedTuple):
    """[node]"""

    name: Annotated[
        str | None,
        Key(node_name, "Name asked for when joining a realm. Not set: the host name."),
    ] = None
    state_dir: Annotated[Path, Key(directory, "Where keys and credentials are kept (mode 0700).")] = STATE_DIR_DEFAULT
    log_level: Annotated[str, Key(choice("debug", "info", "warning", "error"), "How much the log says.", live=True)] = (
        "info"
    )
    nice: Annotated[int, Key(integer(-20, 19), "Nice value of the daemon, if it may choose one.")] = -10


class RealmSettings(NamedTuple):
    """[realm]"""

    token: Annotated[
        str | None,
        Key(
            token,
            "An invitation: a node that is in no realm joins with it at `conflux up`; a late issuer is waited for.",
            secret=True,
        ),
    ] = None
    renew_expired: Annotated[
        int,
        Key(
            integer(0, 3650),
            "Where this node issues: for how many days an expired credential is still renewed.",
            live=True,
        ),
    ] = 90

    def __repr__(self) -> str:
        """Return this without the token, a secret that lets a node into the realm: never in a log."""
        return f"RealmSettings(renew_expired={self.renew_expired})"


class TunSettings(NamedTuple):
    """[tun]"""

    name: Annotated[str, Key(device_name, "Name of the TUN device.")] = "conflux0"
    mtu: Annotated[int, Key(integer(1280, 65000), "Largest IP packet on the device, bytes.")] = 4000
    ipv4: Annotated[
        bool,
        Key(
            boolean,
            "Give the device the node's IPv4 address too, if it has one; without it, packets for it are dropped.",
        ),
    ] = True
    forward_from: Annotated[
        tuple[str, ...],
        Key(interface_names, "Devices whose packets this host may pass on into the realm, as `docker0`; else none."),
    ] = ()
    fail_closed: Annotated[
        bool,
        Key(boolean, "Leave unreachable routes to the realm behind, so that its packets never leave by another route."),
    ] = True


class DatapathSettings(NamedTuple):
    """[datapath]"""

    name: Annotated[
        str,
        Key(
            choice("native", "reference"),
            "What moves packets: `native`, compiled, or `reference`, slow and readable, to compare with.",
        ),
    ] = "native"


class LanSettings(NamedTuple):
    """[control.lan]"""

    enabled: Annotated[bool, Key(boolean, "Use the LAN control channel.")] = True
    port: Annotated[int, Key(integer(1024, 65535), "TCP port that neighbours connect to.")] = LAN_PORT
    interfaces: Annotated[
        tuple[str, ...],
        Key(interface_names, "The only network interfaces to use, for neighbours and links; none named: all."),
    ] = ()
    mdns: Annotated[bool, Key(boolean, "Find neighbours by mDNS, and be found.")] = True
    ring: Annotated[
        bool, Key(boolean, "On a LAN of more than ten boards, keep connections to ten of them at most. On trial.")
    ] = False
    peers: Annotated[
        tuple[tuple[str, int], ...],
        Key(addresses, 'Neighbours to connect to without mDNS: "host", "host:port" or "[ipv6]:port".', live=True),
    ] = ()


class NatsSettings(NamedTuple):
    """[control.nats]"""

    enabled: Annotated[bool, Key(boolean, "Use the broker, where its servers are known.")] = True
    servers: Annotated[
        tuple[tuple[str, int], ...],
        Key(broker_servers, 'Servers of the broker, in any order: "tls://host:port"; without a port it is 4222.'),
    ] = ()
    ca: Annotated[
        Path | None,
        Key(file, "Certificates (PEM) of which one signed the servers'. Not set: those that this system trusts."),
    ] = None
    area: Annotated[str, Key(area, "The nodes whose presence this node hears over the broker.")] = "main"


class ControlSettings(NamedTuple):
    """[control]"""

    lan: LanSettings = LanSettings()
    nats: NatsSettings = NatsSettings()


class StreamSettings(NamedTuple):
    """[stream]"""

    idle_timeout: Annotated[
        float | None,
        Key(
            seconds(1, 3600),
            "A stream without packets ends after this many seconds. Not set: for each node after as long as staying "
            "costs less than opening again, by its past pauses, within the two bounds below.",
            live=True,
        ),
    ] = None
    idle_timeout_min: Annotated[float, Key(seconds(1, 120), "The least that is chosen.", live=True)] = 5.0
    idle_timeout_max: Annotated[float, Key(seconds(1, 120), "The most that is chosen.", live=True)] = 120.0
    metered: Annotated[
        bool,
        Key(boolean, "Bytes cost money here: what stays open without packets weighs twice as much.", live=True),
    ] = False
    resumption: Annotated[
        str,
        Key(
            choice("auto", "always-kem", "off"),
            "Open a stream by a secret of the last one, without signatures: `auto`; `always-kem`, with a fresh ML-KEM "
            "key each time; `off`. The secret is in memory alone.",
        ),
    ] = "auto"
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


class BudgetSettings(NamedTuple):
    """[budget]"""

    day: Annotated[
        int | None,
        Key(
            size,
            'Bytes a day, both ways, as "50 MB". Near it timers stretch, over it `conflux status` warns; nothing is '
            "ever stopped. Not set: no bound.",
            live=True,
        ),
    ] = None
    month: Annotated[int | None, Key(size, 'The same of a month, as "1 GB".', live=True)] = None
    month_starts: Annotated[
        int, Key(integer(1, 28), "On which day of the month a month begins, as on the bill.", live=True)
    ] = 1


class LinkSettings(NamedTuple):
    """[link]"""

    ice_servers: Annotated[
        tuple[IceServer, ...],
        Key(ice_servers, "STUN and TURN servers; none by default, and none is needed on a LAN.", secret=True),
    ] = ()
    dial_count_max: Annotated[int, Key(integer(1, 256), "Links being dialled at the same moment.", live=True)] = 8
    dial_timeout: Annotated[
        float, Key(seconds(1, 120), "A dial that has not connected after this many seconds has failed.", live=True)
    ] = 10.0
    linger: Annotated[
        float, Key(seconds(0, 300), "A link that nothing uses stays open for this many seconds.", live=True)
    ] = 2.0


class RelaySettings(NamedTuple):
    """[relay]"""

    enabled: Annotated[bool, Key(boolean, "Pass frames of other nodes on, if the credential allows it.", live=True)] = (
        True
    )
    public: Annotated[
        bool, Key(boolean, "Every node can dial this one: offer it to any two that cannot reach each other.", live=True)
    ] = False
    bytes_per_s: Annotated[
        int | None,
        Key(integer(10_000, 10_000_000_000), "Bytes passed on per second for one neighbour. Not set: no bound."),
    ] = None


class ApiSettings(NamedTuple):
    """[api]"""

    socket: Annotated[
        Path | None,
        Key(
            socket_path,
            f"Unix socket of the command line. Not set: `{SOCKET_DEFAULT}`, or `{SOCKET_NAME}` in another `state_dir`.",
        ),
    ] = None


class PageSettings(NamedTuple):
    """[page]"""

    listen: Annotated[
        tuple[str, ...],
        Key(
            page_places,
            "Where `conflux page` listens besides loopback: `overlay`, network interfaces, addresses of a LAN.",
        ),
    ] = ()
    port: Annotated[int, Key(integer(1024, 65535), "TCP port of the page.")] = 7480
    names: Annotated[
        tuple[str, ...],
        Key(host_names, "Names that a browser may call this board by, besides its own name and addresses."),
    ] = ()


class Config(NamedTuple):
    """The whole file."""

    node: NodeSettings = NodeSettings()
    realm: RealmSettings = RealmSettings()
    tun: TunSettings = TunSettings()
    datapath: DatapathSettings = DatapathSettings()
    control: ControlSettings = ControlSettings()
    stream: StreamSettings = StreamSettings()
    budget: BudgetSettings = BudgetSettings()
    link: LinkSettings = LinkSettings()
    relay: RelaySettings = RelaySettings()
    api: ApiSettings = ApiSettings()
    page: PageSettings = PageSettings()

    @property
    def socket(self) -> Path:
        """The path of the daemon's socket."""
        usual = self.node.state_dir == STATE_DIR_DEFAULT
        return self.api.socket or (SOCKET_DEFAULT if usual else self.node.state_dir / SOCKET_NAME)

    def with_state_dir(self, state_dir: Path) -> Config:
        """Return this configuration with another state directory."""
        return self._replace(node=self.node._replace(state_dir=state_dir))


class Origin(NamedTuple):
    """Where a daemon has its configuration from.  path: None for the usual place.  state_dir: wins over the file."""

    path: Path | None = None
    state_dir: Path | None = None

    def load(self) -> Config:
        """Read the file, once more.  Raises ConfigError."""
        return self._placed(load(self.path))

    def parse(self, text: str) -> Config:
        """Return the configuration that text describes, as if it stood in the file.  Raises ConfigError."""
        return self._placed(parse(text, name=str(self.path or PATH_DEFAULT)))

    def _placed(self, config: Config) -> Config:
        return config if self.state_dir is None else config.with_state_dir(self.state_dir)


def load(path: Path | None) -> Config:
    """Return the configuration in the file at path.

    path: None for the usual place, where a missing file means the defaults.  Raises ConfigError with the file, the line
    and what is expected there.
    """
    if path is None:
        try:
            return load(PATH_DEFAULT) if PATH_DEFAULT.exists() else Config()
        except PermissionError as error:
            raise ConfigError(f"cannot read {PATH_DEFAULT}: {error.strerror}") from None
    return parse(read(path), name=str(path))


def read(path: Path) -> str:
    """Return the text of the file at path.  Raises ConfigError."""
    try:
        with path.open("rb") as file:
            data = file.read(FILE_BYTES_MAX + 1)
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error.strerror}") from None
    if len(data) > FILE_BYTES_MAX:
        raise ConfigError(f"{path}: larger than {FILE_BYTES_MAX} bytes")
    try:
        return data.decode("utf-8-sig")  # some editors add a byte order mark
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise ConfigError(f"{path}:{line}: not UTF-8 text") from None


def parse(text: str, *, name: str = "conflux.toml") -> Config:
    """Return the configuration that text describes.  name: the file's name, for errors.  Raises ConfigError."""
    # Needed only where there is a file.  Not tomllib: errors of Python 3.11's have no line number.
    import tomli

    from conflux.config.source import Source

    try:
        table = tomli.loads(text)
    except tomli.TOMLDecodeError as error:
        said = error.msg[:1].lower() + error.msg[1:]
        raise ConfigError(f"{name}:{error.lineno}: {said} (column {error.colno})") from None
    except (ValueError, RecursionError) as error:  # too many digits in a number, or too deep nesting
        raise ConfigError(f"{name}: {error}") from None
    source = Source(name, text)
    faults: list[Wrong] = []
    config = _build(Config, table, (), faults)
    if faults:
        raise source.error(*faults[0])
    return config


def faults_of(text: str) -> list[Fault]:
    """Return everything that is wrong in a configuration, from its first line to its last."""
    return examined(text)[1]


def examined(text: str) -> tuple[Config, list[Fault]]:
    """Return what is right in a configuration, all else by default; and everything that is wrong in it."""
    from conflux.config.source import Source

    table, kept, found = most_of(text)
    config, wrong = filled(Config, table)
    source = Source("", kept)
    found += [Fault(source.line(path), said) for path, said in wrong]
    return config, sorted(found, key=lambda each: each.line or 0)


def most_of(text: str) -> tuple[dict[str, Any], str, list[Fault]]:
    """Return the table of a TOML text, the text of which it is, and what is wrong: lines that are no TOML, left out."""
    import tomli

    found: list[Fault] = []
    lines = text.split("\n")
    while True:
        kept = "\n".join(lines)
        try:
            return tomli.loads(kept), kept, found
        except tomli.TOMLDecodeError as error:
            said = f"{error.msg[:1].lower()}{error.msg[1:]} (column {error.colno})"
            found.append(Fault(error.lineno, said))
            if len(found) >= BROKEN_LINE_COUNT_MAX or not _leave_out(lines, error.lineno - 1):
                return {}, "", found
        except (ValueError, RecursionError) as error:
            return {}, "", [*found, Fault(None, str(error))]


def filled(section: type[S], table: Mapping[str, object], path: tuple[str, ...] = ()) -> tuple[S, list[Wrong]]:
    """Return a section filled from a table, and what is wrong in it, which is left out.  path: of the table."""
    wrong: list[Wrong] = []
    return _build(section, table, path, wrong), wrong


def _leave_out(lines: list[str], number: int) -> bool:
    """Empty a line, of a header also what it heads; return False if nothing is left to empty there."""
    if number >= len(lines) or not lines[number].strip():
        return False
    was_header = lines[number].lstrip().startswith("[")
    lines[number] = ""
    while was_header and (number := number + 1) < len(lines) and not lines[number].lstrip().startswith("["):
        lines[number] = ""
    return True


def valued(text: str) -> list[Valued]:
    """Return every key with the value that counts: "(secret)" for a secret one.  Raises ConfigError."""
    import tomli

    from conflux.config.source import Source

    config, source = parse(text), Source("", text)
    table = tomli.loads(text)
    found = []
    for key, _, entry in every_key():
        path = tuple(key.split("."))
        value, told = config, table
        for name in path:
            value = getattr(value, name)
            told = told.get(name) if isinstance(told, dict) else None  # type: ignore[assignment]
        shown = "(secret)" if entry.secret and isinstance(value, str) else _plain(value)
        found.append(Valued(key, shown, None if told is None else source.line(path), entry.live))
    return found


def _plain(value: object) -> object:
    """Return a value as JSON knows it; an ICE server without its password."""
    match value:
        case IceServer():
            return value.url()
        case (str(host), int(port)):
            return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        case tuple():
            return [_plain(each) for each in value]
        case Path():
            return str(value)
        case _:
            return value


def salvage(path: Path) -> Config | None:
    """Return what a broken configuration says of state directory and socket, all else as by default; None: nothing.

    Each line is read by itself, so that a mistake spoils its own line alone.
    """
    import tomli

    try:
        with path.open("rb") as file:
            lines = file.read(FILE_BYTES_MAX).decode(errors="replace").splitlines()
    except OSError:
        return None
    header, found = "", Config()
    for line in lines:
        text = line.strip()
        header = text if text.startswith("[") else header
        try:
            table = tomli.loads(f"{header}\n{text}" if header and text != header else text)
            part = {name: values for name, values in table.items() if name in ("node", "api")}
            kept = {
                name: {key: value for key, value in values.items() if key in ("state_dir", "socket")}
                for name, values in part.items()
            }
            built = _build(Config, kept, (), [])
        except (ValueError, RecursionError, ConfigError, AttributeError):
            continue
        if built.node.state_dir != Config().node.state_dir:
            found = found.with_state_dir(built.node.state_dir)
        if built.api.socket is not None:
            found = found._replace(api=built.api)
    return found


def every_key() -> Iterator[tuple[str, object, Key]]:
    """Yield ("section.key", default, Key) of every key, in the order of the documentation."""
    yield from _keys(Config(), ())


def _keys(section: object, path: tuple[str, ...]) -> Iterator[tuple[str, object, Key]]:
    for name, shape in _shape(type(section)).items():
        default = getattr(section, name)
        if isinstance(shape, Key):
            yield ".".join((*path, name)), default, shape
        else:
            yield from _keys(default, (*path, name))


def _shape(section: type) -> dict[str, Key | type]:
    """Return what each name in a section is: a Key, or the class of a section inside it."""
    hints = get_type_hints(section, include_extras=True)
    return {name: hint.__metadata__[0] if hasattr(hint, "__metadata__") else hint for name, hint in hints.items()}


def _build(section: type[S], table: Mapping[str, object], path: tuple[str, ...], faults: list[Wrong]) -> S:
    """Return a section filled from table, which is at path in the file; what is wrong is left out, and told."""
    shapes = _shape(section)
    values: dict[str, Any] = {}
    for key, value in table.items():
        here = (*path, key)
        shape = shapes.get(key)
        if shape is None:
            faults.append(Wrong(here, _unknown(key, path, list(shapes))))
        elif isinstance(shape, Key):
            try:
                values[key] = shape.check(value)
            except Refused as refused:
                faults.append(Wrong(here, f"{'.'.join(here)} {refused}"))
        elif isinstance(value, dict):
            values[key] = _build(shape, value, here, faults)
        else:
            faults.append(Wrong(here, f"{key!r} is a table: write [{'.'.join(here)}]"))
    return section(**values)


def _unknown(key: str, path: tuple[str, ...], known: list[str]) -> str:
    import difflib  # needed for this error alone

    where = f"in [{'.'.join(path)}]" if path else "at the top level"
    close = difflib.get_close_matches(key, known, n=1)
    hint = f"did you mean {close[0]!r}?" if close else f"known: {', '.join(known)}"
    return f"unknown key {key!r} {where}; {hint}"

"""What a NATS server reads: its configuration, and how systemd or a container runs it.

TLS is 1.3 alone: the three cipher suites that are named belong to no older version.  (`min_version` says so too, but
servers before 2.10 refuse a key that they do not know.)  Paths that differ between systemd and a container come from
the environment.
"""

from __future__ import annotations

import json
import textwrap
from typing import NamedTuple

from conflux.broker.layout import Layout, at

SYNC_S = 1  # how often servers compare accounts: one that was away learns of revocations this late
CONFIG, CERTIFICATE, KEY, CA = "nats-server.conf", "server.pem", "server.key", "ca.pem"
UNIT, COMPOSE = "conflux-nats.service", "compose.yaml"
REALM_CREDS, SYSTEM_CREDS = "realm.creds", "system.creds"  # of a site's server
PLACE = "/etc/conflux-nats"  # where the files lie on the server's host
IMAGE = "docker.io/library/nats:2"

# A node pings every 60 s, and a server pings only those of which it heard nothing: a living node is never asked.
PING_INTERVAL_S = 90
PING_COUNT_MAX = 2
PENDING_BYTES_MAX = 8 << 20  # of one connection that reads too slowly
TLS_S = 5  # for a handshake: a small board far away needs more than the usual 2 s
_LISTEN = "0.0.0.0"  # a server in Go listens on IPv6 too by it
_SUITES = ("TLS_AES_128_GCM_SHA256", "TLS_AES_256_GCM_SHA384", "TLS_CHACHA20_POLY1305_SHA256")


class Accounts(NamedTuple):
    """The JWTs that every server begins with, and the words of the two accounts' keys."""

    operator: str
    system: str
    system_jwt: str
    realm: str
    realm_jwt: str


def server_config(layout: Layout, host: str, accounts: Accounts) -> str:
    """Return the configuration of a server of a region."""
    region = layout.region_of(host)
    parts = [_common(layout, host, accounts)]
    if len(region.hosts) > 1:
        parts.append(_cluster(layout, host))
    if len(layout.regions) > 1:
        parts.append(_gateway(layout, host))
    if layout.leaves:
        parts.append(
            f"leafnodes {{\n  listen: {_quote(at(_LISTEN, layout.leaf_port))}\n  no_advertise: true\n{_tls()}}}\n"
        )
    return "\n".join(parts)


def leaf_config(layout: Layout, host: str, accounts: Accounts) -> str:
    """Return the configuration of a site's server.

    It has a link for the realm, and one for the system account: without the second it never learns of a revocation.
    """
    urls = ", ".join(_quote(f"tls://{at(server, layout.leaf_port)}") for server in layout.hosts)
    remotes = "".join(
        f"    {{\n      urls: [{urls}]\n      account: {account}\n      credentials: {credentials}\n"
        f"      tls {{ ca_file: {CA}, cipher_suites: [{_suites()}], timeout: {TLS_S} }}\n    }}\n"
        for account, credentials in ((accounts.realm, "$REALM_CREDS"), (accounts.system, "$SYSTEM_CREDS"))
    )
    links = f"leafnodes {{\n  remotes: [\n{remotes}  ]\n}}\n"
    return f"{_common(layout, host, accounts)}\n{links}"


def _common(layout: Layout, host: str, accounts: Accounts) -> str:
    preload = f"{accounts.system}: {accounts.system_jwt}\n  {accounts.realm}: {accounts.realm_jwt}"
    return f"""\
# Written by `conflux control init`, which may write it again.
server_name: {_quote(host)}
listen: {_quote(at(_LISTEN, layout.port))}
{textwrap.dedent(_tls())}
operator: {accounts.operator}
system_account: {accounts.system}
resolver: {{
  type: full
  dir: $STATE_DIRECTORY
  allow_delete: false
  interval: "{SYNC_S}s"
}}
# What a server begins with; it keeps what is newer.
resolver_preload: {{
  {preload}
}}

ping_interval: "{PING_INTERVAL_S}s"
ping_max: {PING_COUNT_MAX}
max_pending: {PENDING_BYTES_MAX}
write_deadline: "5s"
lame_duck_duration: "30s"
lame_duck_grace_period: "2s"
"""


def _cluster(layout: Layout, host: str) -> str:
    others = [other for other in layout.region_of(host).hosts if other != host]
    routes = ", ".join(_quote(f"nats-route://{at(other, layout.cluster_port)}") for other in others)
    return f"""\
cluster {{
  name: {_quote(layout.region_of(host).name)}
  listen: {_quote(at(_LISTEN, layout.cluster_port))}
  advertise: {_quote(at(host, layout.cluster_port))}
  no_advertise: true
  routes: [{routes}]
{_tls(is_mutual=True)}}}
"""


def _gateway(layout: Layout, host: str) -> str:
    regions = "".join(
        f"    {{ name: {_quote(region.name)}, urls: ["
        + ", ".join(_quote(f"tls://{at(other, layout.gateway_port)}") for other in region.hosts)
        + "] }\n"
        for region in layout.regions
    )
    return f"""\
gateway {{
  name: {_quote(layout.region_of(host).name)}
  listen: {_quote(at(_LISTEN, layout.gateway_port))}
  advertise: {_quote(at(host, layout.gateway_port))}
  reject_unknown_cluster: true
  gateways: [
{regions}  ]
{_tls(is_mutual=True)}}}
"""


def _tls(*, is_mutual: bool = False) -> str:
    """Return the block for the server's own certificate.  is_mutual: who connects needs one of this authority too."""
    verify = "    verify: true\n" if is_mutual else ""
    return f"""\
  tls {{
    cert_file: {CERTIFICATE}
    key_file: $SERVER_KEY
    ca_file: {CA}
    cipher_suites: [{_suites()}]
    timeout: {TLS_S}
{verify}  }}
"""


def _suites() -> str:
    return ", ".join(_quote(suite) for suite in _SUITES)


def _quote(text: str) -> str:
    return json.dumps(text)


# ── systemd and containers ───────────────────────────────────────────────────────────────────────────────────────────


def secrets(*, is_leaf: bool) -> dict[str, str]:
    """Return the secret files of a server, by the variable of the environment that names them."""
    leaf = {"REALM_CREDS": REALM_CREDS, "SYSTEM_CREDS": SYSTEM_CREDS} if is_leaf else {}
    return {"SERVER_KEY": KEY, **leaf}


def unit(realm: str, *, is_leaf: bool) -> str:
    """Return the systemd unit of a server whose files lie in PLACE."""
    kept = secrets(is_leaf=is_leaf)
    load = "\n".join(f"LoadCredential={file}:{PLACE}/{file}" for file in kept.values())
    environment = "\n".join(f"Environment={variable}=%d/{file}" for variable, file in kept.items())
    return f"""\
[Unit]
Description=NATS server of the realm {realm}
Documentation=https://docs.nats.io
Wants=network-online.target
After=network-online.target

[Service]
WorkingDirectory={PLACE}
ExecStart=nats-server -c {CONFIG}
ExecReload=/bin/kill -s HUP $MAINPID
Restart=always
RestartSec=1
LimitNOFILE=65536

# Keys are handed over by systemd: the service's own user cannot read {PLACE}/{KEY}.
{load}
{environment}
StateDirectory=conflux-nats
StateDirectoryMode=0700
DynamicUser=yes
UMask=0077

CapabilityBoundingSet=
NoNewPrivileges=yes
PrivateDevices=yes
PrivateUsers=yes
ProcSubset=pid
ProtectClock=yes
ProtectControlGroups=yes
ProtectHome=yes
ProtectHostname=yes
ProtectKernelLogs=yes
ProtectKernelModules=yes
ProtectKernelTunables=yes
ProtectProc=invisible
ProtectSystem=strict
LockPersonality=yes
MemoryDenyWriteExecute=yes
RestrictAddressFamilies=AF_INET AF_INET6 AF_UNIX
RestrictNamespaces=yes
RestrictRealtime=yes
RestrictSUIDSGID=yes
SystemCallArchitectures=native
SystemCallFilter=@system-service
SystemCallFilter=~@privileged

[Install]
WantedBy=multi-user.target
"""


def compose(layout: Layout, *, is_leaf: bool, host: str = "") -> str:
    """Return a compose file, for a container in place of the systemd unit; it is JSON, which is YAML too."""
    ports = [layout.port]
    if not is_leaf:
        ports += [layout.cluster_port] if len(layout.region_of(host).hosts) > 1 else []
        ports += [layout.gateway_port] if len(layout.regions) > 1 else []
        ports += [layout.leaf_port] if layout.leaves else []
    kept = secrets(is_leaf=is_leaf)
    service = {
        "image": IMAGE,
        "command": ["-c", CONFIG],
        "working_dir": PLACE,
        "environment": {
            "STATE_DIRECTORY": "/data",
            **{variable: f"/run/secrets/{file}" for variable, file in kept.items()},
        },
        "secrets": list(kept.values()),
        "volumes": [*(f"./{file}:{PLACE}/{file}:ro" for file in (CONFIG, CERTIFICATE, CA)), "accounts:/data"],
        "ports": [f"{port}:{port}" for port in ports],
        "restart": "unless-stopped",
        "read_only": True,
        "cap_drop": ["ALL"],
        "security_opt": ["no-new-privileges:true"],
    }
    whole = {
        "services": {"conflux-nats": service},
        "secrets": {file: {"file": f"./{file}"} for file in kept.values()},
        "volumes": {"accounts": {}},
    }
    return json.dumps(whole, indent=2) + "\n"

"""A report holds what helps to find a fault, and not one secret of the board.

alpha --- br0 --- bravo
"""

from __future__ import annotations

import base64
import gzip
import json
import stat
import tarfile
from collections.abc import Iterator
from pathlib import Path

from rig.topology import Host, Lab

from conflux.crypto.sign import SEED_BYTES
from conflux.state.directory import StateDir

PASSWORD, USER = "correct-horse-battery", "turn-user-7"
PUBLIC = ("realm.anchor", "lock", "boot", "clock", "twin", "daemon.log")  # and credentials, which neighbours are shown
PUBLIC_ENDS = (".chain", ".grant", ".node", ".list", ".notice", ".lock", ".wait", ".sock")
WINDOW = 24  # bytes of a secret that must not be found in a row


def secrets(host: Host) -> Iterator[tuple[str, bytes]]:
    """Yield (where it is, the secret) of every file in the state directory that is not public."""
    state = host.state / "state"
    for file in sorted(state.rglob("*")):
        name = file.name.lstrip(".")
        if file.is_file() and name not in PUBLIC and not name.endswith(PUBLIC_ENDS) and "audit" not in str(file):
            data = file.read_bytes()
            for at in range(max(1, len(data) - WINDOW + 1)):
                yield f"{file}@{at}", data[at : at + WINDOW]


def forms(secret: bytes) -> Iterator[bytes]:
    """Yield how a secret may be written."""
    yield secret
    yield secret.hex().encode()
    yield secret.hex().upper().encode()
    yield base64.b64encode(secret)
    yield base64.urlsafe_b64encode(secret)
    yield base64.b32encode(secret).rstrip(b"=")


def unpacked(archive: Path) -> dict[str, bytes]:
    """Return the files in an archive."""
    with tarfile.open(archive) as tar:
        return {Path(entry.name).name: tar.extractfile(entry).read() for entry in tar}  # type: ignore[union-attr]


def test_a_report_tells_of_the_board_and_of_no_secret(lab: Lab) -> None:
    lan = lab.lan()
    alpha, bravo = lab.host("alpha", lan), lab.host("bravo", lan)
    realm = lab.realm(alpha, bravo)
    alpha.conflux("control", "init", str(alpha.state / "broker"), "--servers", "10.7.1.11")
    tokens = [realm.invite(), realm.invite(3, "--tag", "spare")]
    alpha.conflux("realm", "grant", "bravo", "--issuer")
    turn = {"url": "turn:10.7.1.99", "username": USER, "credential": PASSWORD}
    text = alpha.config.read_text() + f'\n[realm]\ntoken = "{tokens[0]}"\n'
    text = text.replace(
        "[link]", f"[link]\nice_servers = [{{ {', '.join(f'{k} = {json.dumps(v)}' for k, v in turn.items())} }}]"
    )
    alpha.config.write_text(text)
    known = [*tokens, PASSWORD, USER]
    for name, config in (("good", text), ("broken", f"{text}\n[tun]\nmtu = \n")):
        alpha.config.write_text(config)
        archive = alpha.state / f"{name}.tar.gz"
        alpha.conflux("report", str(archive))
        assert stat.S_IMODE(archive.stat().st_mode) == 0o600
        files = unpacked(archive)
        assert b'"realm"' in files["status.json"]
        assert b"conflux-conflux0" in files["rules.txt"]
        assert b"eth0" in files["network.txt"]
        assert b"node.key" in files["state.txt"]
        assert b"ice_servers" in files["configuration.txt"]
        everything = b"\n".join((archive.read_bytes(), gzip.decompress(archive.read_bytes()), *files.values()))
        assert not [secret for secret in known if secret.encode() in everything]
        found = [place for place, secret in secrets(alpha) for form in forms(secret) if form in everything]
        assert found == []
    seeds = {name for name in ("node.key", "root.key", "broker.key") if (alpha.state / "state" / name).exists()}
    assert seeds == {"node.key", "root.key", "broker.key"}
    assert len((StateDir.open(alpha.state / "state").path / "node.key").read_bytes()) > SEED_BYTES
    assert len({place.rpartition("@")[0] for place, _ in secrets(alpha)}) >= 5, "keys and invitations are looked for"


def test_a_report_overwrites_nothing_and_is_made_without_a_daemon_and_without_rights(lab: Lab) -> None:
    alone = lab.host("alone", lab.lan())
    archive = alone.state / "a.tar.gz"
    archive.write_text("mine")
    refused = alone.conflux("report", str(archive), check=False)
    assert (refused.returncode, archive.read_text()) == (1, "mine")
    assert "is there already" in refused.stderr
    (alone.state / "open").mkdir()
    (alone.state / "open").chmod(0o777)
    words = (
        str(alone.lab.program),
        "report",
        "--json",
        "--config",
        str(alone.configured()),
        f"{alone.state}/open/b.tar.gz",
    )
    alone.state.chmod(0o755)
    done = alone.run("setpriv", "--reuid", "65534", "--clear-groups", *words)
    assert set(json.loads(done.stdout)["parts"]) == set(unpacked(alone.state / "open" / "b.tar.gz"))

"""Who may talk to a daemon: root and the user it runs as, by the socket's mode and by the kernel's word.

alpha --- br0        on alpha, the user nobody connects to the daemon's socket
"""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from rig.topology import Host, Lab

NOBODY = ("setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups")

# One request, without the program's files: another user may not be able to read them.
ASK = """
import socket, sys
with socket.socket(socket.AF_UNIX) as connection:
    try:
        connection.connect(sys.argv[1])
    except PermissionError:
        sys.exit("the socket's mode forbids it")
    connection.sendall(b'{"do": "status"}\\n')
    print(connection.makefile().read())
"""


def ask(host: Host, path: Path, *wrapper: str) -> str:
    """Return all that a request for the status is answered with."""
    done = host.run(*wrapper, Path(sys.executable).resolve(), "-I", "-c", ASK, path, check=False)
    return done.stdout + done.stderr


def test_a_user_other_than_the_daemons_is_refused_even_if_the_sockets_mode_lets_it_in(lab: Lab) -> None:
    alpha = lab.host("alpha", lab.lan())
    if alpha.run(*NOBODY, "true", check=False).returncode:
        pytest.skip("this user namespace has no user but root")
    path = alpha.state / "api" / "conflux.sock"
    alpha.configure({"api": {"socket": str(path)}})
    realm = lab.realm(alpha)
    assert '{"done":' in ask(alpha, path)
    assert "the socket's mode forbids it" in ask(alpha, path, *NOBODY)
    path.chmod(0o666)
    refused = ask(alpha, path, *NOBODY)
    assert '{"error":"only root and the user the daemon runs as may talk to it"}' in refused, realm.tails()
    assert '"done"' not in refused
    assert alpha.conflux_json("status")["drops"]["api-refused"] == 1

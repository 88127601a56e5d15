"""Who may talk to a daemon: root, the user it runs as, and to look the group; by the socket's mode and by the kernel.

alpha --- br0        on alpha, the user nobody connects to the daemon's socket, alone and as a member of the group
"""

from __future__ import annotations

import os
import stat
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
    connection.sendall(b'{"do": "%s"}\\n' % sys.argv[2].encode())
    print(connection.makefile().read())
"""


def ask(host: Host, path: Path, *wrapper: str, do: str = "status") -> str:
    """Return all that a request is answered with."""
    done = host.run(*wrapper, Path(sys.executable).resolve(), "-I", "-c", ASK, path, do, check=False)
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
    assert '{"error":"only root, the user the daemon runs as and the group conflux may talk to it"}' in refused, (
        realm.tails()
    )
    assert '"done"' not in refused
    assert alpha.status().drops["api-refused"] == 1


def test_a_member_of_the_group_looks_and_cannot_end_the_daemon(lab: Lab) -> None:
    alpha = lab.host("alpha", lab.lan())
    gid = os.getgid() + 901
    member = ("setpriv", "--reuid", "65534", "--regid", "65534", "--groups", str(gid))
    if alpha.run(*member, "true", check=False).returncode:
        pytest.skip("this user namespace has no user but root")
    path = alpha.state / "api" / "conflux.sock"
    alpha.configure({"api": {"socket": str(path)}})
    alpha.conflux("realm", "create", "lab", "--node", "alpha")
    groups = alpha.state / "group"
    groups.write_text(f"{Path('/etc/group').read_text()}conflux:x:{gid}:\n")
    daemon = alpha.daemon("unshare", "--mount", "sh", "-c", f'mount --bind {groups} /etc/group && exec "$@"', "sh")
    assert (stat.S_IMODE(path.stat().st_mode), path.stat().st_gid) == (0o660, gid)
    alpha.state.chmod(0o755)
    assert '{"done":' in ask(alpha, path, *member), daemon.tail()
    assert "the socket's mode forbids it" in ask(alpha, path, *NOBODY)
    assert "you may look at this node and not change it" in ask(alpha, path, *member, do="down")
    assert '{"done":' in ask(alpha, path), "the daemon goes on"

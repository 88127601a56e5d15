"""Keys are no longer in memory once the engine replaced or removed them.

A child process runs the engine, and Python in it has one copy of every secret.  We read the child's memory from outside
and count the copies.  An expanded AES key begins with the key, and a ChaCha20 state contains it.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from typing import Self

import pytest

from conflux.anchor import frame as f

REGION_BYTES_MAX = 1 << 30  # a larger region is a sanitizer's shadow of memory: it holds no data of the program

# Runs each line of its input and then says so.  The second fromhex() overwrites what the first left on the stack.
CHILD = """
import os, socket, sys
from conflux.anchor.key import EpochKey
from conflux.carrier.wire import AES_128_GCM, DtlsKeys, StunKeys
from conflux.datapath.config import DatapathConfig
from conflux.datapath.native import _engine

aead = int(sys.argv[1])
secrets = [bytes.fromhex(word) for word in sys.stdin.readline().split()]
bytes.fromhex("00" * 64)
engine = _engine.Engine(-1, False, DatapathConfig(), os.urandom)

def key(epoch):
    return EpochKey(epoch, aead, secrets[epoch], b"npre")

for line in sys.stdin:
    exec(line)
    print("done", flush=True)
"""


class Child:
    """The child process.  secrets: one key per epoch."""

    def __init__(self, aead: int, secrets: list[bytes]) -> None:
        self._secrets = secrets
        self._process = subprocess.Popen(
            [sys.executable, "-c", CHILD, str(aead)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self._tell(" ".join(secret.hex() for secret in secrets))
        self.run("pass")

    def _tell(self, line: str) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(f"{line}\n")
        self._process.stdin.flush()

    def run(self, statement: str) -> Self:
        """Have the child run one statement."""
        assert self._process.stdout is not None
        self._tell(statement)
        assert self._process.stdout.readline() == "done\n"
        return self

    def held(self) -> set[int]:
        """Return the epochs whose keys are in its memory more than once: beside Python's copy, in the engine."""
        counts = [0] * len(self._secrets)
        with open(f"/proc/{self._process.pid}/maps") as maps, open(f"/proc/{self._process.pid}/mem", "rb") as memory:
            for first, last in re.findall(r"^(\w+)-(\w+) rw", maps.read(), re.MULTILINE):
                start, end = int(first, 16), int(last, 16)
                if end - start > REGION_BYTES_MAX:
                    continue
                memory.seek(start)
                data = memory.read(end - start)
                for epoch, secret in enumerate(self._secrets):
                    counts[epoch] += data.count(secret)
        assert min(counts) > 0, "Python's copies"
        return {epoch for epoch, count in enumerate(counts) if count > 1}

    def end(self) -> None:
        """End the child."""
        self._process.communicate()
        assert self._process.returncode == 0


@pytest.fixture(params=[f.AES_256_GCM, f.CHACHA20_POLY1305], ids=["AES-256-GCM", "ChaCha20-Poly1305"])
def child(request: pytest.FixtureRequest) -> Iterator[Child]:
    """A child process with an engine, and the keys of three epochs."""
    one = Child(request.param, [os.urandom(f.KEY_BYTES) for _ in range(3)])
    yield one
    one.end()


def test_a_senders_key_is_wiped_at_a_rekey_and_at_removal(child: Child) -> None:
    child.run("sender = engine.add_sender(engine.add_egress(), key(0), True)")
    assert child.held() == {0}
    child.run("engine.rekey_sender(sender, key(1))")
    assert child.held() == {1}
    child.run("engine.detach_sender(sender)")
    assert child.held() == {1}, "it seals the last frame"
    child.run("engine.remove_sender(sender)")
    assert child.held() == set()


def test_a_receivers_keys_are_wiped_as_its_epochs_end_and_at_removal(child: Child) -> None:
    child.run("receiver = engine.add_receiver([], key(0), True)")
    child.run("engine.rekey_receiver(receiver, key(1))")
    assert child.held() == {0, 1}
    child.run("sender = engine.add_sender(engine.add_egress(), key(1), True); last = engine.seal_last(sender)")
    child.run("engine.remove_sender(sender); assert engine.verify_last(receiver, last)")
    assert child.held() == {0, 1}, "the epoch before is accepted for the grace"
    child.run("engine.forget_epoch(receiver)")
    assert child.held() == {1}
    child.run("engine.rekey_receiver(receiver, key(2))")
    assert child.held() == {1, 2}
    child.run("engine.remove_receiver(receiver)")
    assert child.held() == set()


def test_a_receivers_unused_key_is_wiped_when_another_replaces_it(child: Child) -> None:
    child.run("receiver = engine.add_receiver([], key(0), True)")
    child.run("engine.rekey_receiver(receiver, key(1))")
    child.run("engine.rekey_receiver(receiver, key(2))")
    assert child.held() == {0, 2}


def test_a_receivers_key_of_the_epoch_before_is_wiped_at_the_next_rekey_and_at_removal(child: Child) -> None:
    child.run("receiver = engine.add_receiver([], key(0), True)")
    for epoch in (1, 2):
        child.run(f"engine.rekey_receiver(receiver, key({epoch}))")
        child.run(f"sender = engine.add_sender(engine.add_egress(), key({epoch}), True)")
        child.run("last = engine.seal_last(sender); engine.remove_sender(sender)")
        child.run("assert engine.verify_last(receiver, last)")
    assert child.held() == {1, 2}
    child.run("engine.remove_receiver(receiver)")
    assert child.held() == set()


def test_every_key_is_wiped_when_the_engine_closes(child: Child) -> None:
    child.run("sender = engine.add_sender(engine.add_egress(), key(0), True)")
    child.run("receiver = engine.add_receiver([], key(1), True); engine.rekey_receiver(receiver, key(2))")
    assert child.held() == {0, 1, 2}
    child.run("engine.close()")
    assert child.held() == set()


def test_a_links_keys_are_wiped_when_it_is_removed() -> None:
    child = Child(f.AES_256_GCM, [os.urandom(16), os.urandom(16)])
    child.run("end, far = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET); end.setblocking(False)")
    child.run("keys = DtlsKeys(AES_128_GCM, secrets[0], secrets[1], bytes(4), bytes(4), 32)")
    child.run("engine.add_link(1, end.fileno(), None, keys, StunKeys(b'ours', b'peers'), 5000, 5000, 1472)")
    assert child.held() == {0, 1}
    child.run("engine.remove_link(1)")
    assert child.held() == set()
    child.end()

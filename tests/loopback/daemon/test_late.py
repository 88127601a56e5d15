"""A daemon whose credential ended: it looks for an issuer at the broker too, and uses what it gets."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from kit.cluster import broker, now_unix
from kit.founder import Founder

from conflux.config.settings import parse
from conflux.daemon.build import build
from conflux.daemon.device import plan
from conflux.daemon.ending import Ending
from conflux.state.directory import StateDir


@pytest.mark.parametrize("lan", ["false", "true\nmdns = false"])
async def test_daemon_that_reaches_its_issuer_by_the_broker_alone_is_renewed_late(tmp_path: Path, lan: str) -> None:
    async with broker() as at:
        founder = Founder(at)
        state = StateDir.open(tmp_path / "bob", create=True)
        member = founder.admitted("bob", 35, state.make_node_keys())
        state.save_member(member)
        (tmp_path / "ca.pem").write_text(at.certificates.ca)
        host, port = at.addresses[0]
        settings = parse(
            f'[node]\nstate_dir = "{tmp_path / "bob"}"\n[control.lan]\nenabled = {lan}\n'
            f'[control.nats]\nservers = ["tls://{host}:{port}"]\nca = "{tmp_path / "ca.pem"}"\n'
        )
        device: Any = SimpleNamespace(name="none", fd=-1, segments_udp=False)
        running = build(settings, state, member, device, plan(settings, member).config, Ending(), ca=at.certificates.ca)
        try:
            assert running.late is not None
            assert running.renewal.is_lost()
            await running.late.search()
            assert "no issuer answered" in running.renewal.refused
            async with founder.node:
                await founder.node.until(up=True)
                await founder.node.flushed()
                await running.late.search()
            assert running.renewal.refused == ""
            assert running.renewal.member.chain.not_after > now_unix()
            kept = state.member()
            assert kept is not None
            assert kept.chain == running.renewal.member.chain
        finally:
            running.mover.stop()
            state.close()

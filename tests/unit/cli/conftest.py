"""Commands of these tests run on a host without networks."""

import pytest

from conflux.host import networks


@pytest.fixture(autouse=True)
def host_networks(monkeypatch) -> list[networks.Taken]:
    """What this host leads to; a test adds to it."""
    used: list[networks.Taken] = []
    monkeypatch.setattr(networks, "taken", lambda *, but: used)
    monkeypatch.setattr(networks, "tailscale_drops", lambda prefix: False)
    return used

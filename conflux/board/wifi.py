"""Wi-Fi: the file of wpa_supplicant, and what its answers say to a person."""

from __future__ import annotations

from enum import StrEnum
from typing import Final, NamedTuple

CONTROL: Final = "/run/wpa_supplicant"
HEX_KEY_CHARS: Final = 64
COUNTRY_UNSET: Final = "00"  # the world's: channels that are allowed everywhere


class Network(NamedTuple):
    """A Wi-Fi network as the card has it.  password: None: an open one."""

    ssid: str
    password: str | None
    country: str | None
    hidden: bool = False

    def __repr__(self) -> str:
        """Return this without the password: never in a log."""
        return f"Network(ssid={self.ssid!r})"


class Wifi(StrEnum):
    """How the connection is."""

    UP = "up"
    SEARCHING = "searching"
    REFUSED = "refused"
    UNSEEN = "unseen"  # wpa_supplicant does not answer


def text_of(network: Network) -> str:
    """Return the file of wpa_supplicant."""
    lines = [
        f"ctrl_interface={CONTROL}",
        "update_config=0",
        "p2p_disabled=1",
        f"country={network.country or COUNTRY_UNSET}",
    ]
    # In hexadecimal, a name needs no quotes and can hold none.
    lines += ["network={", f"\tssid={network.ssid.encode().hex()}"]
    if network.hidden:
        lines.append("\tscan_ssid=1")
    if network.password is None:
        lines.append("\tkey_mgmt=NONE")
    elif len(network.password) == HEX_KEY_CHARS:
        lines += ["\tkey_mgmt=WPA-PSK", f"\tpsk={network.password}"]
    else:
        # The file's reader looks for the last quote of the line, so a quote in the password needs no escape.
        lines += ["\tkey_mgmt=WPA-PSK WPA-PSK-SHA256 SAE", "\tieee80211w=1", f'\tpsk="{network.password}"']
    return "\n".join([*lines, "}", ""])


def state_of(status: str | None, networks: str | None) -> Wifi:
    """Return how the connection is, of the answers to STATUS and LIST_NETWORKS; None: there was none."""
    if status is None:
        return Wifi.UNSEEN
    values = dict(line.partition("=")[::2] for line in status.splitlines())
    if values.get("wpa_state") == "COMPLETED":
        return Wifi.UP
    if networks is not None and "[TEMP-DISABLED]" in networks:
        return Wifi.REFUSED
    return Wifi.SEARCHING


def notice(state: Wifi, ssid: str, since_s: float) -> str | None:
    """Return what a person should know; None: nothing.  since_s: for how many seconds it has been so."""
    match state:
        case Wifi.REFUSED:
            return f"Wi-Fi {ssid!r} refuses this board: wifi.password is wrong, or it takes no more devices"
        case Wifi.SEARCHING if since_s >= SEARCH_S:
            return (
                f"Wi-Fi {ssid!r} is not found: is wifi.ssid right, and does it reach here on a channel of wifi.country?"
            )
        case Wifi.UNSEEN if since_s >= SEARCH_S:
            return "Wi-Fi is configured and does not run: has this board a Wi-Fi device (wlan0)?"
    return None


SEARCH_S: Final = (
    60.0  # chosen: a scan of all channels takes some seconds, and an access point may start with the board
)


def ssid_of(text: str) -> str:
    """Return the network's name in a file of wpa_supplicant, of text_of()."""
    for line in text.splitlines():
        if line.startswith("\tssid="):
            return bytes.fromhex(line.removeprefix("\tssid=")).decode("utf-8", "replace")
    return ""

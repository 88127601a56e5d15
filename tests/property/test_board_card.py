"""The files of a card under any bytes: they end in settings and lines for a person, and in nothing else."""

from __future__ import annotations

import tomli
from hypothesis import given
from hypothesis import strategies as st

from conflux.board import card, daemon_file, erase, imager, plain_yaml, settle, wifi
from conflux.config import settings
from conflux.config.checks import Refused

WORDS = (
    *("[board]", "[wifi]", "[conflux.page]", "[conflux.control.lan]", "name", "token", "ssh_key", "ssid", "password"),
    *(" = ", "\n", '"', "'", "cfx1abc", "attic", "port", "7465", "true", "[", "]", "{", "}", "#", "\\", "\u00e9", "- "),
    *(
        ": ",
        "  ",
        "hostname",
        "users",
        "ssh_authorized_keys",
        "wifis",
        "access-points",
        "|",
        "---",
        "&a",
        "imager_custom ",
    ),
)
texts = st.lists(st.sampled_from(WORDS), max_size=40).map("".join)
files = st.binary(max_size=300) | texts.map(str.encode)
values = st.recursive(
    st.booleans() | st.integers(-(2**40), 2**40) | st.text(st.characters(exclude_categories=("Cs",)), max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(st.sampled_from('a-_ ."\n'), max_size=4), inner)
    ),
    max_leaves=12,
)
names = st.sampled_from(imager.FILES)


@given(files)
def test_any_card_ends_in_settings_that_are_kept_and_read_back(data: bytes) -> None:
    read = card.read_untrusted(data)
    now = settle.settled(read, settle.Kept())
    assert settle.decode_untrusted(settle.encode(now)).name == now.name
    assert all(str(fault) for fault in read.faults)
    text = daemon_file.text_of(daemon_file.table_of(now.conflux, now.name), settle.token_of(read))
    settings.parse(text)


@given(st.dictionaries(names, files))
def test_any_files_of_imager_end_in_settings(found: dict[str, bytes]) -> None:
    read = imager.read_untrusted(found, zones=lambda name: True)
    assert (read is None) == (not found)


@given(texts | st.text(max_size=60))
def test_any_text_is_plain_yaml_or_refused_with_its_line(text: str) -> None:
    line = 1
    try:
        plain_yaml.parse(text)
    except plain_yaml.PlainYamlError as error:
        line = error.line
    assert 1 <= line <= text.count("\n") + 1


@given(st.dictionaries(st.text(st.sampled_from('a-_ ."\n'), max_size=4), values, max_size=4))
def test_any_table_is_written_as_toml_that_says_the_same(table: dict[str, object]) -> None:
    assert tomli.loads(daemon_file.toml_of(table)) == table


@given(st.binary(max_size=60), st.integers(1, 400), st.binary(max_size=60), st.sampled_from(erase.ENCODINGS))
def test_a_secret_is_gone_and_nothing_else(before: bytes, size: int, after: bytes, encoding: str) -> None:
    text = "cfx1" + "z" * size
    secret = text.encode(encoding)
    data = before + secret + after
    erased = erase.applied(data, erase.patches(data, text))
    assert secret not in erased
    assert len(erased) == len(data)
    if secret not in before + after and before[-1:] not in (b"c", b"\0") and after[:1] != b"\0":
        assert (erased[: len(before)], erased[len(erased) - len(after) :]) == (before, after)


@given(st.text(min_size=1, max_size=32), st.none() | st.from_regex(r"[ -~]{8,63}", fullmatch=True))
def test_any_network_is_one_network_of_the_file(ssid: str, password: str | None) -> None:
    try:
        card.ssid(ssid)
    except (Refused, UnicodeEncodeError):
        return
    text = wifi.text_of(wifi.Network(ssid, password, None))
    assert wifi.ssid_of(text) == ssid
    assert text.count("\n}\n") == 1

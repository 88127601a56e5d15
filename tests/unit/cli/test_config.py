"""`conflux config check` and `conflux config show`."""

from __future__ import annotations

import json
from argparse import Namespace
from pathlib import Path

import pytest

from conflux.cli import config
from conflux.config import settings


def options(file: Path | None = None, **given: object) -> Namespace:
    return Namespace(**{"config": None, "file": file, "state_dir": None, "json": False, **given})


def written(tmp_path: Path, text: str) -> Path:
    file = tmp_path / "conflux.toml"
    file.write_text(text)
    return file


def test_check_names_every_place_and_ends_with_1(tmp_path, capsys):
    file = written(tmp_path, "[tun]\nmtu = 1\nname = 'a/b'\n[nod]\n")
    assert config.check(options(file)) == 1
    places = [line.split(": ")[0] for line in capsys.readouterr().out.splitlines()]
    assert places == [f"{file}:2", f"{file}:3", f"{file}:4"]


def test_check_of_a_good_file_ends_with_0_and_of_a_missing_one_with_2(tmp_path, capsys):
    assert config.check(options(written(tmp_path, "[tun]\nmtu = 1400\n"))) == 0
    assert config.check(options(tmp_path / "absent")) == 2
    assert "cannot read" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('[realm]\ntoken = "cfx1AAAA"\n', "realm.token"),
        ('[control.lan]\ninterfaces = ["no-such-0"]\n', "control.lan.interfaces"),
        ('[control.nats]\nca = "/nowhere/ca.pem"\n', "control.nats.ca: cannot read /nowhere/ca.pem"),
    ],
)
def test_check_finds_what_is_well_formed_and_cannot_work(text, words, tmp_path, capsys):
    file = written(tmp_path, text)
    assert config.check(options(file)) == 1
    assert capsys.readouterr().out.startswith(f"{file}:2: {words}")


def test_check_says_it_in_json_too(tmp_path, capsys):
    assert config.check(options(written(tmp_path, "[tun]\nmtu = 1\n"), json=True)) == 1
    assert [fault["line"] for fault in json.loads(capsys.readouterr().out)["faults"]] == [2]


def test_without_a_file_the_defaults_count(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(settings, "PATH_DEFAULT", tmp_path / "absent")
    assert config.check(options()) == 0
    assert config.show_values(options(json=True)) == 0
    said = capsys.readouterr().out
    assert "there is none" in said
    assert {each["origin"] for each in json.loads(said.partition("\n")[2])["values"].values()} == {"default"}


def test_show_says_where_a_value_comes_from(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "400")
    file = written(tmp_path, '[node]\nstate_dir = "/srv/x"\n[tun]\nmtu = 1400\n')
    config.show_values(options(config=file))
    rows = {line.split()[0]: line.split()[1:] for line in capsys.readouterr().out.splitlines()}
    assert rows["tun.mtu"] == ["1400", f"{file}:4"]
    assert rows["tun.ipv4"] == ["true", "default"]
    config.show_values(options(config=file, state_dir=Path("/other")))
    assert '"/other"' in capsys.readouterr().out

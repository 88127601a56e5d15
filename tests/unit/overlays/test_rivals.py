"""`make rivals`: what is built from what, what is said of it, and who uses it."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from overlays.overlays import ALL, NebulaGiven, NebulaOffloads, Programs, WireGuardGoGiven, YggdrasilGiven
from overlays.rivals import (
    NOT_BUILT,
    RIVALS,
    STANDINS,
    TOOLCHAIN,
    Notes,
    build_command,
    is_built,
    module_file,
    read_notes,
    reason,
    try_all,
    write_notes,
)

FOLDERS = {swap.place: "/unpacked" for rival in RIVALS for swap in rival.swaps if swap.by_folder}
NAMED = {rival.name: rival for rival in RIVALS}


@pytest.mark.parametrize("rival", RIVALS, ids=lambda rival: rival.name)
def test_a_rival_is_pinned_by_version_and_by_toolchain(rival):
    lines = module_file(rival, FOLDERS).splitlines()
    assert f"require {rival.module} {rival.version}" in lines
    assert f"go {TOOLCHAIN}" in lines
    assert rival.version.startswith("v")
    for swap in rival.swaps:
        (line,) = [line for line in lines if line.startswith(f"replace {swap.module} => ")]
        assert line.endswith("/unpacked" if swap.by_folder else swap.version or swap.place)


def test_a_stand_in_is_a_module_of_the_name_that_it_stands_in_for():
    folders = {swap.place: swap.module for rival in RIVALS for swap in rival.swaps if not swap.version}
    assert set(folders) == {path.name for path in STANDINS.iterdir()}
    for folder, module in folders.items():
        assert f"module {module}\n" in (STANDINS / folder / "go.mod").read_text()


def test_a_program_is_built_from_its_package_and_a_root_package_has_no_slash():
    command = build_command(NAMED["nebula"], "nebula-cert", "go", Path("/out"))
    assert command[-2:] == ["/out/nebula-cert", "github.com/slackhq/nebula/cmd/nebula-cert"]
    assert build_command(NAMED["wireguard-go"], "wireguard-go", "go", Path("/out"))[-1] == "golang.zx2c4.com/wireguard"


def test_a_rival_that_is_not_its_makers_build_says_so():
    assert NAMED["wireguard-go"].told == "wireguard-go 2026-05-22"
    assert NAMED["nebula"].told == "nebula 1.12.0 (without its own netlink, dnsconfig, gvisor)"


def test_the_reason_is_the_last_thing_said_without_progress():
    said = "go: downloading a v1\nfirst\nmain.go:1:2: x@v1: reading it: 403 Forbidden\n\tnot available.\n\n"
    assert reason(said) == "main.go:1:2: x@v1: reading it: 403 Forbidden not available."
    assert reason("one\ntwo\n") == "two"
    assert reason("go: downloading a v1\n") == "it ended without a word"
    assert (
        reason(json.dumps({"Path": "x", "Error": "x@v1: 403\n\tnot available"}, indent=1)) == "x@v1: 403 not available"
    )
    assert reason("[]") == "[]"
    assert reason("") == "it ended without a word"
    assert len(reason("x" * 5000)) == 300


def test_another_version_or_toolchain_or_swap_is_another_recipe():
    nebula = NAMED["nebula"]
    assert nebula.recipe == replace(nebula).recipe
    others = [replace(nebula, version="v1.12.1"), replace(nebula, swaps=nebula.swaps[1:])]
    assert len({nebula.recipe, *(other.recipe for other in others)}) == 3


def test_what_is_built_by_this_recipe_is_left_and_all_else_is_not(tmp_path):
    nebula = NAMED["nebula"]
    notes = Notes({}, {"nebula": nebula.recipe}, {})
    assert not is_built(nebula, notes, tmp_path)
    (tmp_path / "nebula").touch()
    assert not is_built(nebula, notes, tmp_path)
    (tmp_path / "nebula-cert").touch()
    assert is_built(nebula, notes, tmp_path)
    assert not is_built(replace(nebula, version="v1.12.1"), notes, tmp_path)


def test_without_go_nothing_is_built_and_each_rival_is_named_with_the_reason(tmp_path):
    notes = try_all(None, Notes({}, {}, {}), tmp_path)
    assert notes.versions == {} == notes.recipes
    assert set(notes.absent) == {*NAMED, *NOT_BUILT}
    assert "no `go`" in notes.absent["nebula"]


def test_without_go_what_was_built_before_stays(tmp_path):
    (tmp_path / "yggdrasil").touch()
    before = Notes({}, {"yggdrasil": NAMED["yggdrasil"].recipe}, {})
    assert try_all(None, before, tmp_path).versions == {"yggdrasil": NAMED["yggdrasil"].told}


def test_notes_are_read_as_written_and_a_directory_without_them_has_none(tmp_path):
    nothing = Notes({}, {}, {})
    assert read_notes(tmp_path) == nothing
    notes = Notes({"nebula": "nebula 1.12.0"}, {"nebula": "abc"}, {"tailscale": "no server"})
    write_notes(tmp_path, notes)
    assert read_notes(tmp_path) == notes
    for odd in ("", "[]", "{}", json.dumps({"versions": 1, "recipes": {}, "absent": {}})):
        (tmp_path / "rivals.json").write_text(odd)
        assert read_notes(tmp_path) == nothing


@pytest.fixture
def built(tmp_path):
    """A directory as `make rivals` leaves it when yggdrasil could not be had."""
    directory = tmp_path / "rivals"
    directory.mkdir()
    for program in ("nebula", "nebula-cert", "wireguard-go"):
        (directory / program).touch()
    write_notes(directory, Notes({"nebula": "nebula 1.12.0"}, {}, {"yggdrasil": "0.5.14: 403", **NOT_BUILT}))
    return directory


def test_what_was_built_is_measured_without_being_named_and_the_rest_says_why(built):
    programs = Programs(built=built)
    assert NebulaGiven.missing(programs) == "" == NebulaOffloads.missing(programs)
    assert NebulaOffloads.version(programs) == "nebula 1.12.0"
    assert YggdrasilGiven.missing(programs) == "0.5.14: 403"
    assert "tailscale" in programs.absent()


def test_a_directory_that_is_named_comes_before_what_was_built(built, tmp_path):
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "nebula").touch()
    programs = Programs([mine], built=built)
    assert programs.given("nebula") == mine / "nebula"
    assert NebulaGiven.version(programs) == f"nebula from {mine}"


def test_without_make_rivals_the_newest_are_left_out_by_name(tmp_path):
    programs = Programs(built=tmp_path)
    for kind in (WireGuardGoGiven, NebulaGiven, NebulaOffloads, YggdrasilGiven):
        assert kind in ALL
    assert "make rivals" in NebulaGiven.missing(programs)
    assert "make rivals" in YggdrasilGiven.missing(programs)


def test_the_offloads_are_all_that_tells_the_two_nebulas_apart():
    assert NebulaGiven.beside == {}
    assert NebulaOffloads.beside == {"tun": {"use_offloads": True}, "listen": {"udp_offloads": True}}

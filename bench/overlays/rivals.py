"""The newest rivals, built from their sources by pinned version into build/rivals: `make rivals`.

      recipe ----> go.mod of its own ----> go build ----> build/rivals/NAME       one file per program
                                                          build/rivals/rivals.json  what was built, what not and why

Nothing of the product depends on any of them.  Every module is fetched by the ordinary Go client, which checks it
against Go's checksum database.  What cannot be had is left out and named.  What is built already is left as it is.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

TREE = Path(__file__).resolve().parents[2]
BUILT = TREE / "build" / "rivals"
STANDINS = Path(__file__).resolve().parent / "standins"
NOTES = "rivals.json"

TOOLCHAIN = "1.27.3"  # what nebula 1.12 asks for; the Go client fetches it
BUILD_WITHIN_S = 3600  # a small board needs most of an hour
REASON_LENGTH = 300  # characters of a client's complaint that are kept


@dataclass(frozen=True, slots=True)
class Swap:
    """A module that mirrors lack, and what is built in its place: another module, or a folder of standins."""

    module: str
    place: str
    version: str = ""  # empty: place is a folder of standins
    by_folder: bool = False  # the place imports itself by its own name, and Go allows one version one name alone


@dataclass(frozen=True, slots=True)
class Rival:
    """A program in Go: where it comes from, and what is built of it."""

    name: str
    shown: str  # the version as the report shows it
    module: str
    version: str
    programs: tuple[tuple[str, str], ...]  # name of the file, package inside the module ("": its root)
    swaps: tuple[Swap, ...] = ()

    @property
    def recipe(self) -> str:
        """Return what tells two ways to build it apart."""
        return hashlib.sha256(json.dumps([asdict(self), TOOLCHAIN]).encode()).hexdigest()[:16]

    @property
    def told(self) -> str:
        """Return the version with all that differs from its makers' build."""
        swapped = ", ".join(swap.module.rsplit("/", 1)[-1] for swap in self.swaps)
        return f"{self.name} {self.shown}" + (f" (without its own {swapped})" if swapped else "")


RIVALS = (
    Rival(
        name="wireguard-go",
        shown="2026-05-22",
        module="golang.zx2c4.com/wireguard",
        version="v0.0.0-20260522210424-ecfc5a8d5446",
        programs=(("wireguard-go", ""),),
    ),
    Rival(
        name="nebula",
        shown="1.12.0",
        module="github.com/slackhq/nebula",
        version="v1.12.0",
        programs=(("nebula", "cmd/nebula"), ("nebula-cert", "cmd/nebula-cert")),
        swaps=(
            # Its fork of netlink, and what that is a fork of.
            Swap("github.com/DefinedNet/netlink", "github.com/vishvananda/netlink", "v1.3.1", by_folder=True),
            Swap("github.com/DefinedNet/dnsconfig", "dnsconfig"),
            # Of gVisor it uses one checksum, and only where the processor has no AVX2.
            Swap("gvisor.dev/gvisor", "gvisor.dev/gvisor", "v0.0.0-20250503011706-39ed1f5ac29c"),
        ),
    ),
    Rival(
        name="yggdrasil",
        shown="0.5.14",
        module="github.com/yggdrasil-network/yggdrasil-go",
        version="v0.5.14",
        programs=(("yggdrasil", "cmd/yggdrasil"),),
        swaps=(Swap("suah.dev/protect", "protect"),),
    ),
)

NOT_BUILT = {
    "tailscale": "needs a coordination server; headscale is not to be had from every mirror of Go modules",
    "netbird": "needs a management and a signal server, which no registry has",
    "easytier": "crates.io has 2.0.3, far behind its makers' releases",
}


def module_file(rival: Rival, folders: Mapping[str, str]) -> str:
    """Return the go.mod that a rival is built from; folders has where each module lies that is taken by folder."""
    lines = ["module rivals", "", f"go {TOOLCHAIN}", "", f"require {rival.module} {rival.version}"]
    for swap in rival.swaps:
        if swap.by_folder:
            lines += [f"replace {swap.module} => {folders[swap.place]}", f"require {swap.place} {swap.version}"]
        else:
            place = f"{swap.place} {swap.version}" if swap.version else str(STANDINS / swap.place)
            lines.append(f"replace {swap.module} => {place}")
    return "\n".join(lines) + "\n"


def build_command(rival: Rival, program: str, go: str, directory: Path) -> list[str]:
    """Return the command that builds one program of a rival into a directory."""
    package = dict(rival.programs)[program]
    target = f"{rival.module}/{package}" if package else rival.module
    return [go, "build", "-buildvcs=false", "-mod=mod", "-o", str(directory / program), target]


def reason(said: str) -> str:
    """Return the end of what a client said, in words or as JSON, without its progress, in one line."""
    with contextlib.suppress(ValueError, TypeError, KeyError):
        said = str(json.loads(said)["Error"])
    lines = [line for line in said.splitlines() if line.strip()]
    told = [line for line in lines if not line.startswith(("go: downloading ", "go: finding ", "go: found "))]
    last = told[-2:] if len(told) > 1 and told[-1][:1].isspace() else told[-1:]  # an indented line goes on
    text = " ".join(" ".join(last).split())
    shown = text if len(text) <= REASON_LENGTH else "…" + text[1 - REASON_LENGTH :]
    return shown or "it ended without a word"


@dataclass(frozen=True, slots=True)
class Notes:
    """What stands in a directory of rivals: versions and recipes by name, and reasons for what is not there."""

    versions: dict[str, str]
    recipes: dict[str, str]
    absent: dict[str, str]

    def as_json(self) -> dict[str, Any]:
        """Return it as plain values."""
        return asdict(self)


def read_notes(directory: Path) -> Notes:
    """Return the notes of a directory; empty ones if it has none, or others than ours."""
    try:
        told = json.loads((directory / NOTES).read_text(encoding="utf-8"))
        return Notes(dict(told["versions"]), dict(told["recipes"]), dict(told["absent"]))
    except (OSError, ValueError, KeyError, TypeError):
        return Notes({}, {}, {})


def write_notes(directory: Path, notes: Notes) -> None:
    """Write the notes whole or not at all."""
    part = directory / f".{NOTES}.part"
    part.write_text(json.dumps(notes.as_json(), indent=1) + "\n", encoding="utf-8")
    part.replace(directory / NOTES)


def is_built(rival: Rival, notes: Notes, directory: Path) -> bool:
    """Return whether a directory has a rival by this very recipe."""
    there = all((directory / program).is_file() for program, _ in rival.programs)
    return there and notes.recipes.get(rival.name) == rival.recipe


def find_go() -> str | None:
    """Return the Go client, on PATH or where its makers' archive puts it."""
    return shutil.which("go") or shutil.which("/usr/local/go/bin/go")


class NotBuilt(Exception):
    """A rival cannot be built here; the text says why."""


def ask_go(command: list[str], work: Path) -> str:
    """Run the Go client in a folder and return what it said on standard output.  Raises NotBuilt."""
    environment = os.environ | {"GOTOOLCHAIN": f"go{TOOLCHAIN}", "GOWORK": "off"}
    try:
        done = subprocess.run(
            command,
            cwd=work,
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=BUILD_WITHIN_S,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise NotBuilt(f"{command[0]}: {error}"[:REASON_LENGTH]) from None
    if done.returncode:
        raise NotBuilt(reason(done.stderr or done.stdout))
    return done.stdout


def build(rival: Rival, go: str, directory: Path) -> None:
    """Build a rival's programs into a directory, all or none.  Raises NotBuilt."""
    for program, _ in rival.programs:
        (directory / program).unlink(missing_ok=True)  # of another version
    work = directory / "work" / rival.name
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True)
    folders = {}
    for swap in rival.swaps:
        if swap.by_folder:
            fetched = ask_go([go, "mod", "download", "-json", f"{swap.place}@{swap.version}"], work)
            folders[swap.place] = json.loads(fetched)["Dir"]
    (work / "go.mod").write_text(module_file(rival, folders), encoding="utf-8")
    for program, _ in rival.programs:
        ask_go(build_command(rival, program, go, work), work)
    for program, _ in rival.programs:
        (work / program).replace(directory / program)


def try_all(go: str | None, before: Notes, directory: Path) -> Notes:
    """Build into a directory what is not there yet, and return what there is then."""
    notes = Notes({}, {}, dict(NOT_BUILT))
    for rival in RIVALS:
        try:
            if not is_built(rival, before, directory):
                if go is None:
                    raise NotBuilt("it is in Go, and there is no `go` on PATH")
                print(f"rivals: building {rival.name} {rival.shown} (a minute or more)", flush=True)
                build(rival, go, directory)
        except NotBuilt as why:
            notes.absent[rival.name] = f"{rival.shown}: {why}"
        else:
            notes.versions[rival.name] = rival.told
            notes.recipes[rival.name] = rival.recipe
    return notes


def main() -> int:
    """Build what is missing and say what there is; return 1 if there is nothing."""
    BUILT.mkdir(parents=True, exist_ok=True)
    notes = try_all(find_go(), read_notes(BUILT), BUILT)
    write_notes(BUILT, notes)
    for told in notes.versions.values():
        print(f"rivals: {told}")
    for name, why in notes.absent.items():
        print(f"rivals: without {name}: {why}")
    return 0 if notes.versions else 1


if __name__ == "__main__":
    sys.exit(main())

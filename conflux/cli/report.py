"""`conflux report`: an archive for the report of a fault."""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path
from typing import NamedTuple

from conflux.cli.observe import print_json
from conflux.doctor import report
from conflux.doctor.examine import findings
from conflux.doctor.subject import Subject, subject


class Written(NamedTuple):
    """The answer to `conflux report`.  file: the archive; parts: the files in it."""

    file: str
    archive_bytes: int
    parts: tuple[str, ...]


def write_report(options: argparse.Namespace) -> int:
    """Write the archive, and say where it is."""
    seen, now_unix = subject(options.config, options.state_dir), int(time.time())
    name = f"conflux-report-{_node(seen)}-{time.strftime('%Y%m%d-%H%M%S', time.localtime(now_unix))}"
    path = options.file or Path(f"{name}.tar.gz")
    if path.exists():  # said before the doctor takes its seconds; write() makes sure of it
        report.write(path, b"")
    files = list(report.parts(seen, findings(seen, deep=True)))
    data = report.archive(files, name, now_unix)
    report.write(path, data)
    if options.json:
        return print_json(Written(str(path), len(data), tuple(each.name for each in files)))
    sys.stdout.write(f"{path}: no keys and no passwords are in it, but names and addresses; to read it:\n")
    sys.stdout.write(f"  tar -xOzf {path} | less\n")
    return 0


def _node(seen: Subject) -> str:
    if seen.member is not None:
        return seen.member.name
    return str((seen.daemon.status.get("node") or {}).get("name", "board"))

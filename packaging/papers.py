"""Write the manual's pages and the shells' completions into a directory: packaging/papers.py DIRECTORY.

They are made when a package is, and not kept: the grammar of the command line is what they say.
The date of the pages is SOURCE_DATE_EPOCH, in Unix seconds, or 1970.
"""

from __future__ import annotations

import os
import sys
from datetime import UTC, datetime
from pathlib import Path

TREE = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(TREE)]

from completion import scripts  # noqa: E402  # where the program is, and this folder, has to be known first
from manual import pages  # noqa: E402

from conflux.cli.parser import parser  # noqa: E402

CONFIGURATION = TREE / "docs" / "reference" / "configuration.md"


def main(directory: Path) -> None:
    """Write every paper there."""
    date = datetime.fromtimestamp(int(os.environ.get("SOURCE_DATE_EPOCH", "0")), UTC).date().isoformat()
    for name, text in (*pages(parser(), CONFIGURATION.read_text(), date), *scripts(parser())):
        (directory / name).write_text(text)


if __name__ == "__main__":
    main(Path(sys.argv[1]))

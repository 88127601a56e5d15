"""Puts the tables of build/cost.md, which `make cost` made, into docs/explanation/cost.md."""

from __future__ import annotations

from pathlib import Path

TREE = Path(__file__).resolve().parents[2]
PAGE = TREE / "docs" / "explanation" / "cost.md"
BEGIN, END = "<!-- ledger: made by `make cost` -->\n", "<!-- end of the ledger -->\n"


def main() -> None:
    """Replace what stands between the two comments."""
    before, _, rest = PAGE.read_text(encoding="utf-8").partition(BEGIN)
    _, _, after = rest.partition(END)
    tables = (TREE / "build" / "cost.md").read_text(encoding="utf-8")
    PAGE.write_text(f"{before}{BEGIN}\n{tables}\n{END}{after}", encoding="utf-8")


if __name__ == "__main__":
    main()

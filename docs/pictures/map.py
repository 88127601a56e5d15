"""Draws the rooms of the package and who imports whom: `make map` writes map.svg beside this file.

The picture is made from the code.  Rooms and arrows are the imports of today.  Rows and colours are the floors and the
machines of tests/unit/test_house.py.  The words are the first of each room's docstring.  An arrow that a longer way
implies is left out: it would add no order.

The layout is Sugiyama's: an arrow has a place in every row that it crosses; places are sorted by the mean of their
neighbours, then moved towards them.  There is no chance and no clock in it, so the same code gives the same bytes.
"""

from __future__ import annotations

import ast
import re
import textwrap
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from html import escape
from itertools import pairwise
from pathlib import Path
from statistics import fmean

TREE = Path(__file__).resolve().parents[2]
HOUSE = TREE / "tests" / "unit" / "test_house.py"
PICTURE = Path(__file__).with_name("map.svg")

ROOM_WIDTH, ROOM_HEIGHT = 180, 74
LANE_WIDTH = 10  # an arrow that crosses a row
GAP = 18
ROW_HEIGHT = 122
MARGIN_X, MARGIN_TOP, MARGIN_BOTTOM = 56, 84, 24
IMPORTED = re.compile(r"^ *(?:from conflux\.|import conflux\.|from conflux import )(\w+)", re.MULTILINE)
SWEEPS = 40  # the order is at rest long before
TEXT_COLUMNS, TEXT_LINES = 28, 3

Edge = tuple[str, str]


@dataclass(slots=True)
class Place:
    """A room in its row, or the lane of an arrow through a row."""

    name: str
    row: int
    is_room: bool
    x: float = 0.0
    above: list[Place] = field(default_factory=list)
    below: list[Place] = field(default_factory=list)

    @property
    def width(self) -> int:
        """Return how much of its row it takes."""
        return ROOM_WIDTH if self.is_room else LANE_WIDTH


# ── what the code says ───────────────────────────────────────────────────────────────────────────────────────────────


def house(name: str) -> tuple[object, ...]:
    """Return a tuple of constants that test_house.py defines."""
    for node in ast.parse(HOUSE.read_text()).body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == name:
            return tuple(ast.literal_eval(node.value))
    raise LookupError(f"{HOUSE.name} has no {name}")


def files_of(room: str) -> list[Path]:
    """Return the modules of a room."""
    package = TREE / "conflux"
    return sorted((package / room).rglob("*.py")) or [package / f"{room}.py"]


def imported(file: Path) -> set[str]:
    """Return the rooms that a module imports from, by its lines: parsing all modules takes a second."""
    return set(IMPORTED.findall(file.read_text()))


def imports(floors: dict[str, int]) -> set[Edge]:
    """Return which room imports which, downwards alone: test_house.py refuses any other."""
    return {
        (room, other)
        for room in floors
        for file in files_of(room)
        for other in imported(file)
        if other in floors and floors[other] < floors[room]
    }


def reduced(edges: set[Edge]) -> list[Edge]:
    """Return the edges that no longer way implies."""

    def reached(start: str, without: Edge) -> set[str]:
        seen: set[str] = set()
        open_ = [start]
        while open_:
            here = open_.pop()
            following = {target for source, target in edges if source == here and (source, target) != without} - seen
            seen |= following
            open_ += sorted(following)
        return seen

    return sorted(edge for edge in edges if edge[1] not in reached(edge[0], edge))


def words(room: str) -> list[str]:
    """Return the first sentence of a room's docstring in lines; if it is long, the part before a colon or comma."""
    text = ast.get_docstring(ast.parse(files_of(room)[0].read_text())) or ""
    sentence = re.split(r"\.(?=\s|$)", text.replace("`", ""))[0]
    lines = textwrap.wrap(sentence, TEXT_COLUMNS)
    if len(lines) > TEXT_LINES:
        mark = ":" if ": " in sentence else ","
        lines = textwrap.wrap(sentence.partition(f"{mark} ")[0], TEXT_COLUMNS)
    return lines[:TEXT_LINES]


# ── places ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def placed(floors: dict[str, int], edges: Iterable[Edge]) -> tuple[list[list[Place]], list[list[Place]]]:
    """Return the rows, top first, and the way of each edge through them."""
    top = max(floors.values())
    rows: list[list[Place]] = [[] for _ in range(top + 1)]
    rooms = {room: Place(room, top - floor, True) for room, floor in floors.items()}
    for place in rooms.values():
        rows[place.row].append(place)
    ways = []
    for source, target in edges:
        way = [rooms[source]]
        for row in range(rooms[source].row + 1, rooms[target].row):
            way.append(Place(f"{source}>{target}", row, False))
            rows[row].append(way[-1])
        way.append(rooms[target])
        for upper, lower in pairwise(way):
            upper.below.append(lower)
            lower.above.append(upper)
        ways.append(way)
    return sort(rows), ways


def crossings(rows: list[list[Place]]) -> int:
    """Return how often arrows cross."""
    count = 0
    for upper, lower in pairwise(rows):
        at = {id(place): index for index, place in enumerate(lower)}
        ends = [(index, at[id(end)]) for index, place in enumerate(upper) for end in place.below]
        count += sum(one < other and end > other_end for one, end in ends for other, other_end in ends)
    return count


def sort(rows: list[list[Place]]) -> list[list[Place]]:
    """Return the rows in the order, of those that sweeps down and up find, in which arrows cross least."""
    best, best_count = [list(row) for row in rows], crossings(rows)
    for sweep in range(SWEEPS):
        down = sweep % 2 == 0
        for row in rows if down else reversed(rows):
            at = {id(place): index / len(other) for other in rows for index, place in enumerate(other)}
            row.sort(key=lambda place: _mean_of(place.above if down else place.below, at, at[id(place)]))
        if (count := crossings(rows)) < best_count:
            best, best_count = [list(row) for row in rows], count
    return best


def _mean_of(neighbours: list[Place], at: dict[int, float], here: float) -> float:
    return fmean(at[id(place)] for place in neighbours) if neighbours else here


def spread(rows: list[list[Place]]) -> float:
    """Give every place its x, near those of its neighbours and in the order of its row; return the width of all."""
    for row in rows:
        for left, right in pairwise(row):
            right.x = left.x + _apart(left, right)
    for sweep in range(SWEEPS):
        for row in rows if sweep % 2 == 0 else reversed(rows):
            _settle(row)
    least = min(place.x - place.width / 2 for row in rows for place in row)
    for row in rows:
        for place in row:
            place.x = round(place.x - least)
    return max(place.x + place.width / 2 for row in rows for place in row)


def _apart(left: Place, right: Place) -> float:
    return (left.width + right.width) / 2 + GAP


def _settle(row: list[Place]) -> None:
    """Move a row to where its places want to be, as far as they leave one another room.

    Places that would overlap move as a block, to the mean of what they want.
    """
    blocks: list[tuple[list[Place], list[float]]] = []  # places; where each wants the block's first place to be
    for place in row:
        neighbours = place.above + place.below
        want = fmean(other.x for other in neighbours) if neighbours else place.x
        members, wants = [place], [want]
        while blocks and fmean(blocks[-1][1]) + _length(blocks[-1][0]) + _apart(blocks[-1][0][-1], members[0]) > fmean(
            wants
        ):
            before, wants_before = blocks.pop()
            shift = _length(before) + _apart(before[-1], members[0])
            members, wants = before + members, wants_before + [each - shift for each in wants]
        blocks.append((members, wants))
    for members, wants in blocks:
        members[0].x = fmean(wants)
        for left, right in pairwise(members):
            right.x = left.x + _apart(left, right)


def _length(members: list[Place]) -> float:
    return sum(_apart(left, right) for left, right in pairwise(members))


# ── the picture ──────────────────────────────────────────────────────────────────────────────────────────────────────


def picture() -> str:
    """Return the map as SVG."""
    floors = {str(room): number for number, rooms in enumerate(house("FLOORS")) for room in _strings(rooms)}
    machines = set(_strings(house("MACHINES")))
    rows, ways = placed(floors, reduced(imports(floors)))
    inner = spread(rows)
    width, height = round(inner) + 2 * MARGIN_X, MARGIN_TOP + len(rows) * ROW_HEIGHT + MARGIN_BOTTOM
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}"'
        ' font-family="Helvetica, Arial, sans-serif">',
        "<title>The rooms of conflux/, and which imports which</title>",
        f'<rect width="{width}" height="{height}" fill="#ffffff"/>',
        '<defs><marker id="tip" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" orient="auto">'
        '<path d="M0 0.8 L7 4 L0 7.2 z" fill="#7d8794"/></marker></defs>',
        f'<text x="{MARGIN_X}" y="34" font-size="20" font-weight="bold" fill="#1d2733">The rooms of conflux/</text>',
        f'<text x="{MARGIN_X}" y="56" font-size="12.5" fill="#4a5563">A room imports rooms of lower floors alone. '
        "An arrow that a longer way implies is left out.</text>",
        *_legend(width - MARGIN_X),
    ]
    for row in range(len(rows)):
        top = MARGIN_TOP + row * ROW_HEIGHT
        if row % 2 == 0:
            parts.append(f'<rect x="0" y="{top}" width="{width}" height="{ROW_HEIGHT}" fill="#f6f8fa"/>')
        parts.append(f'<text x="16" y="{_middle(row) + 5}" font-size="14" fill="#9aa4b0">{len(rows) - 1 - row}</text>')
    parts += [_arrow(way) for way in ways]
    parts += [line for row in rows for place in row if place.is_room for line in _room(place, place.name in machines)]
    return "\n".join([*parts, "</svg>", ""])


def _strings(values: object) -> list[str]:
    assert isinstance(values, tuple)
    return [str(value) for value in values]


def _middle(row: int) -> int:
    return MARGIN_TOP + row * ROW_HEIGHT + ROW_HEIGHT // 2


def _legend(right: int) -> Iterator[str]:
    for left, style, text in (
        (right - 330, _STYLES[True], "machine: decides, no I/O"),
        (right - 140, _STYLES[False], "all other rooms"),
    ):
        yield f'<rect x="{left}" y="24" width="18" height="13" rx="3" {style}/>'
        yield f'<text x="{left + 25}" y="35" font-size="12.5" fill="#4a5563">{text}</text>'


_STYLES = {True: 'fill="#e3f1e6" stroke="#4f9161"', False: 'fill="#ffffff" stroke="#8fa0b3"'}


def _room(place: Place, is_machine: bool) -> Iterator[str]:
    x, y = MARGIN_X + place.x, _middle(place.row)
    yield (
        f'<rect x="{x - ROOM_WIDTH // 2:g}" y="{y - ROOM_HEIGHT // 2}" width="{ROOM_WIDTH}" height="{ROOM_HEIGHT}"'
        f' rx="7" stroke-width="1.3" {_STYLES[is_machine]}/>'
    )
    lines = words(place.name)
    at = y - 6 * len(lines) + 4
    yield (
        f'<text x="{x:g}" y="{at}" font-size="15" font-weight="bold" text-anchor="middle" fill="#1d2733">'
        f"{place.name}</text>"
    )
    for number, line in enumerate(lines, 1):
        yield (
            f'<text x="{x:g}" y="{at + 2 + 13 * number}" font-size="10.5" text-anchor="middle" fill="#4a5563">'
            f"{escape(line)}</text>"
        )


def _arrow(way: list[Place]) -> str:
    """Return an arrow: straight through the rows that it crosses, bent between them."""
    begin, end = way[0], way[-1]
    half = ROOM_HEIGHT // 2
    x, y = MARGIN_X + begin.x + _shift(begin, begin.below, way[1]), _middle(begin.row) + half
    parts = [f"M{x:g} {y}"]
    for place in way[1:]:
        is_last = place is end
        to_x = MARGIN_X + place.x + (_shift(end, end.above, way[-2]) if is_last else 0)
        to_y = _middle(place.row) - half - (1 if is_last else 0)
        middle = (y + to_y) // 2
        parts.append(f"C{x:g} {middle} {to_x:g} {middle} {to_x:g} {to_y}")
        x, y = to_x, to_y
        if not is_last:
            y = _middle(place.row) + half
            parts.append(f"L{x:g} {y}")
    return f'<path d="{" ".join(parts)}" fill="none" stroke="#7d8794" stroke-width="1.3" marker-end="url(#tip)"/>'


def _shift(place: Place, neighbours: list[Place], neighbour: Place) -> float:
    """Return where on a room's edge the arrow from or to a neighbour is: in the order of the neighbours."""
    order = sorted(neighbours, key=lambda other: other.x)
    index = next(number for number, other in enumerate(order) if other is neighbour)
    return round((index - (len(order) - 1) / 2) * min(22, (ROOM_WIDTH - 24) / max(1, len(order))))


def main() -> None:
    """Write the picture."""
    PICTURE.write_text(picture())


if __name__ == "__main__":
    main()

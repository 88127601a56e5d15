"""Puts this directory on the path, so that every simulation can import world."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

"""Puts this directory on the path, so that every test can import builders."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

"""A process that gave its capabilities up has none, and no program it starts gets any back."""

import subprocess
import sys

PROGRAM = """
import subprocess
from conflux.host import privileges
privileges.drop()
privileges.drop()
print(privileges.effective(), flush=True)
subprocess.run(["grep", "-E", "CapEff|CapPrm|NoNewPrivs", "/proc/self/status"], check=True)
"""


def test_a_process_that_dropped_its_capabilities_has_none_and_passes_none_on():
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True)
    own, _, child = done.stdout.partition("\n")
    assert own == "0"
    assert {tuple(line.split()) for line in child.splitlines() if line} == {
        ("CapPrm:", "0" * 16),
        ("CapEff:", "0" * 16),
        ("NoNewPrivs:", "1"),
    }

"""`python -m conflux` is the conflux command."""

import sys

from conflux.cli import main

sys.exit(main())

"""`python -m conflux` is the conflux command."""

import sys

from conflux.cli.entry import main

sys.exit(main())

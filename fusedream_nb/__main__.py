"""``python -m fusedream_nb`` is ``fusedream-nb``."""

from __future__ import annotations

import sys

from fusedream_nb.cli import main

sys.exit(main())

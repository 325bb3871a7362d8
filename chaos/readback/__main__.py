"""`python -m chaos.readback`; see `chaos.readback.cli`."""

import sys

from chaos.readback.cli import main

sys.exit(main())

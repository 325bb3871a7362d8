"""`python -m chaos.lab`; see `chaos.lab.cli`."""

import sys

from chaos.lab.cli import main

sys.exit(main())

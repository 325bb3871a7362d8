"""`python -m chaos.traffic`; see `chaos.traffic.cli`."""

import sys

from chaos.traffic.cli import main

sys.exit(main())

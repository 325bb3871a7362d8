"""`python -m chaos`; see `chaos.cli`."""

from chaos.cli import app

app()

"""``python -m celeriac`` is the command ``celeriac``."""

from celeriac.cli.main import main

main()

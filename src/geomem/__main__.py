r"""``python -m geomem``: the command line."""

from geomem.cli.main import main

main()

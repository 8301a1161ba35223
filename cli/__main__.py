"""`python -m cli`: the same as `opagent`."""

from cli.main import main

main()

"""`python -m server.cli`, where the console script is not installed."""

from server.cli.main import main

main()

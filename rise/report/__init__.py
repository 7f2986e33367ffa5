"""One self-contained page about one or several evaluations; see `python -m rise.report --help`."""

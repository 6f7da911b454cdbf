"""The command line: the only place with Typer and Rich."""

INTERRUPTED = 130  # exit code
STDOUT = "-"  # in place of the name of a file

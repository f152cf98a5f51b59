"""``python -m stack``."""

from stack.app import app

app(prog_name="python -m stack")

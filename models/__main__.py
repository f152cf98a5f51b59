"""`python -m models`: the commands of `models.app` on their own."""

from models.app import app

app(prog_name="models")

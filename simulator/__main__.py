"""`python -m simulator`: the commands of `simulator.app` on their own."""

from simulator.app import app

app(prog_name="simulator")

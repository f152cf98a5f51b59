"""Learning from labels as they come, and deciding when what was learnt may score."""

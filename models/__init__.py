"""Models: training, the artefact they are shipped in, the scorer, the heuristic behind it, and rules."""

"""The jobs that `flink run -py` submits: wiring only."""

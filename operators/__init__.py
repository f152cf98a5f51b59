"""The Python functions that run inside Flink: thin bodies between the engine and the jobs' wiring."""

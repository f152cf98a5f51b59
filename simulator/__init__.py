"""Synthetic card and account traffic with known fraud, and the replay of recorded data sets."""

"""`fraudstream demo`: simulated traffic through the real scoring job, and how it went."""

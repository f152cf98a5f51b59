"""Alerts on their way to people: routed, gathered, and sent until somebody has taken them."""

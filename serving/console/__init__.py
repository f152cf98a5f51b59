"""The analyst console: a queue of cases, each case with its reasons, dashboards, and what steers the jobs.

Pages run in the gateway's process (NiceGUI), read through `serving.queries` and act through what the gateway
has: the same checks, the same table of permissions, the same audit trail.
"""

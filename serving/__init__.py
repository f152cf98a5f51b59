"""What stands between people or payment systems and the jobs."""

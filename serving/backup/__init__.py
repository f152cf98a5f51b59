"""The database on files, and back: written whole or not at all, verified before anything is restored."""

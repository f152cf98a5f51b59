"""The command `fraudstream`: everything a person does with the system, from one place."""

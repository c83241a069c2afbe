"""Runs beyond one process or one machine, which leave the same artefacts behind."""

"""What outgrows one process or one machine, leaving the same artefacts behind."""

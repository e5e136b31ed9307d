"""Artefacts: one module per format, each with `export(program, …)`."""

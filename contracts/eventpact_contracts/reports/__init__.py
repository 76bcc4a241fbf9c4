"""Verdicts made visible: a terminal matrix, and files in several formats."""

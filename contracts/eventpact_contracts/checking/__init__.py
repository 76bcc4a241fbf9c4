"""Checks: scenarios are played, traces are judged."""

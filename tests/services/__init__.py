"""Tests that need real services: tox -e services."""

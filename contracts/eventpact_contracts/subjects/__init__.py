"""Dispatchers that are put to the contract, and how they are loaded."""

"""Scenarios as data, and the strategies that draw them."""

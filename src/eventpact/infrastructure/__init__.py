"""Engines behind the ports: dispatchers, database, mail, HTTP."""

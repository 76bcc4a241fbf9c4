"""Good dispatchers, which the rogues are made of."""

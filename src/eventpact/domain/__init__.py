"""Events, the dispatcher interface and accounts: standard library only."""

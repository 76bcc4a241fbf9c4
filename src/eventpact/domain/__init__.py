"""What is true whatever carries the events: standard library only."""

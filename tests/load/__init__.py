"""The real server under load, and what the times of its answers tell."""

"""Parts that the dispatchers share."""

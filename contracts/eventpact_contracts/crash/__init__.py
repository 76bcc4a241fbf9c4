"""Law G3: processes that are killed."""

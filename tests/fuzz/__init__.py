"""The HTTP API against requests that are made up from its own schema."""

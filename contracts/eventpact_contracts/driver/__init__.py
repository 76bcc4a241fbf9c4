"""The driver: plays a scenario over a dispatcher and records the trace."""

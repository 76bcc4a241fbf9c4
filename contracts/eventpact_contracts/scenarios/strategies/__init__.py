"""The Hypothesis strategies that draw scenarios."""

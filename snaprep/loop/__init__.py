"""A run: the loop, and what it does between two looks."""

"""Verbs that need no loop: they look, or do one thing. The command line reaches them through `snaprep.run`."""

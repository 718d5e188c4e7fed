"""Doing one action: each writes its recipe, the interpreter runs it, and the hosts are observed again after."""

"""The command line: one file a verb. Parse, call, render, exit code."""

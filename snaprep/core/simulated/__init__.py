"""A model of two hosts with a pair: the same decisions and recipes run in it, and anything may die at any step."""

"""A pair of database hosts with an operator's machine beside them, made of namespaces, in a few seconds."""

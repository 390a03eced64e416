"""The rules, one function each, in one module for each group."""

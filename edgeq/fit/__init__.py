"""Gates from an integer network's outputs on every path: targets, both forms, and what to choose.

Nothing here runs a network, and nothing needs a framework.
"""

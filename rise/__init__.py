"""Recursive introspection: episodes, their records, weights and metrics.

`policies` and `serving` decide who answers, `rollout` plays the episodes, `trajectory` keeps them,
`dataset` turns them into weighted examples, `metrics` measures them. Importing this package loads
nothing heavy.
"""

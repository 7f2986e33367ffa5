"""Recursive introspection: episodes, their records, weights and metrics; docs/architecture.md."""

"""Rows of a step as the trie of their tokens, every token of which is computed once."""

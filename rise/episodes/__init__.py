"""The record of an episode, and where it is kept."""

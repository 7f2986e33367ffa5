"""FastChat's controller, model workers and trainer, rewritten for RISE."""

__version__ = "0.2.36+rise"

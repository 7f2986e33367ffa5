"""Fine-tuning rows, the examples that are trained, and the batches of a step."""

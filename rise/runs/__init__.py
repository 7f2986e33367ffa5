"""One call of workflow_gen.py or workflow_eval.py, from its arguments to its last line."""

"""What vllm_worker needs of the server that it stands in front of."""

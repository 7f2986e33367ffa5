"""What a client of controllers and workers needs: the workers of a model, HTTP, child processes."""

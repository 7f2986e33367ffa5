"""What the OpenAI-compatible server reads, asks and answers."""

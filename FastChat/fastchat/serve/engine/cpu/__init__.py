"""What a CPU needs to generate fast: a C kernel, compiled by the worker when it starts."""

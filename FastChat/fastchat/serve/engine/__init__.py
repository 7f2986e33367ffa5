"""The embedded engine: requests in, tokens out, batched step by step."""

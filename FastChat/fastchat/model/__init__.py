"""Loading models and tokenizers, for serving and for training."""

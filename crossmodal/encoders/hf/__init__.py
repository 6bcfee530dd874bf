"""Twin encoders of Hugging Face transformers, from a folder or the hub, run as their own processors say."""

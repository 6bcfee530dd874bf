"""Every twin encoder that open_clip knows, run on any backend with the embeddings open_clip itself gives."""

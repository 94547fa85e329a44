"""Weights and training state on disk: safetensors and JSON, complete or absent, checked by SHA-256 when read."""

"""Safetensors in and out, manifests, digests, the admission checks."""

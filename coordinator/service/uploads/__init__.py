"""Uploads: a signed manifest, resumable chunks, a receipt."""

"""Uploads: from a signed manifest over resumable chunks to a receipt."""

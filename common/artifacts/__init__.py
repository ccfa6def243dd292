"""The content-addressed store: a local directory or S3."""

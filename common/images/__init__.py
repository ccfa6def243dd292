"""Images as files: decoding one, reading folders of them."""

"""What lets anybody check a net's history: a Merkle log, its signed head, signed statements."""

"""Changes into audit rows: images, redaction, the line that is stored and hashed, Merkle roots, block hashes. Pure."""

"""BCD as a codec: a file of content and entropy-coded motion codes, see docs/bitstream.md."""

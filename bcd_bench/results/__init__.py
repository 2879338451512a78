"""Records of runs, and tables built from them."""

"""The method `pca-motion`: a weight-free baseline for faces that warps one picture by landmarks."""

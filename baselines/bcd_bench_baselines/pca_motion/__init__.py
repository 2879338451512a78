"""The method `pca-motion`: a baseline for faces without weights, which warps one image by landmarks."""

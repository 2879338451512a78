"""The dense landmark network: extractor, training, training images."""

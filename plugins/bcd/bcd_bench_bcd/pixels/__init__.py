"""`bcd-bench train bcd-pixels`: add the extension `pixel_path` to a trained BCD."""

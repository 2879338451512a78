"""`bcd-bench train bcd-landmarks`: add the extension `landmark_motion` to a trained BCD."""

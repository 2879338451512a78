"""`validate-metrics`: how metrics respond to controlled perturbations."""

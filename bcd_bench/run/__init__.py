"""One run: plan, folder, generation."""

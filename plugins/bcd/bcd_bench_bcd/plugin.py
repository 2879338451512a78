"""What this plugin offers: specs only; heavy code is imported by whoever uses it."""

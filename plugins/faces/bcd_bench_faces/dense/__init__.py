"""Our own dense landmarks: a small network that is trained on rendered heads only, and says how sure it is."""

"""Reading and writing files: videos, images, arrays, weights."""

"""Reading and writing of files: videos, images, arrays, weights."""

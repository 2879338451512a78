"""Single transfers: clips of any size, one method, one file."""

"""Reports: rows from records, one file a format. Nothing here imports torch."""

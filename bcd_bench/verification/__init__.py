"""Checks of records: against their own files, the installed plugins, and outputs that are scored or made again."""

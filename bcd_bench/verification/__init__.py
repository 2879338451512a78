"""Checks of records: against their own files, the installed plugins, and outputs that are rescored or regenerated."""

"""Devices, interrupts, progress, locks."""

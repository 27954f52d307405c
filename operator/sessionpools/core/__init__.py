"""Decisions only: plain functions over frozen dataclasses. No I/O, no client, no clock of its own."""

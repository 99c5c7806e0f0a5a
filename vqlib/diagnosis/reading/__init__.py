"""Logs as people keep them: files, folders and consoles, read into histories."""

"""Faults made on purpose, one at a time: the suite has to notice each."""

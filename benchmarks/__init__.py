"""Measurements of speed and memory. They print and write numbers, and assert nothing."""

"""Benchmarks of speed and memory. They print and write measurements, and check no limits."""

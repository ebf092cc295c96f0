"""NumPy doubles, builders of small blocks and data, and contract tests, for tests in any folder."""

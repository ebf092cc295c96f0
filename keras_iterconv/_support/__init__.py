"""What several parts of the package need and no user calls."""

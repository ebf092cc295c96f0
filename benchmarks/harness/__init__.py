"""Fair timing: processes that take turns, a control computation, intervals."""

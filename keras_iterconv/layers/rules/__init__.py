"""The rules of the blocks for certificates: their report rows, and their Lipschitz bounds."""

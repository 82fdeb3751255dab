"""The tool around tinytorch: what runs, checks and grades it."""

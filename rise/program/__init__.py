"""What every program shares: arguments, exit codes, files."""

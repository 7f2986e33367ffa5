"""Numbers: rates with their intervals, votes, comparisons, tables, plots."""

"""What the data frames say: levers, findings, comparisons."""

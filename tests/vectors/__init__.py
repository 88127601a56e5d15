"""Known answers, each file with its source and date."""

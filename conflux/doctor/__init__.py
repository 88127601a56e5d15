"""What is good and bad on this board for Conflux: each check looks, and judges what it saw apart from the looking."""

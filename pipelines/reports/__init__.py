"""What one or more runs came to, as one page: what they recorded, how they scored, and what to look at in it."""

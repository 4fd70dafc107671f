"""What a model says about itself: where it comes from, how it scored, and the page that tells it."""

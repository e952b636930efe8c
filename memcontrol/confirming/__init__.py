"""What a search found, trained again with fresh seeds and judged on held-out images that the search did not use."""

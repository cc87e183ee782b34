"""Makes the site of the guides: its pages, its reference, its equations."""

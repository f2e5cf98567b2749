"""The map of cells as a picture: points, density, gates, and the tools that draw them."""

"""From a field to its white cells, and from those to the square pictures that an encoder sees."""

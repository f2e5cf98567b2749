"""The gallery: thumbnails of cells that are looked through, named and reviewed by the keyboard."""

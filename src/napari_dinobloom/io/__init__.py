"""Images in, studies on disk, tables out: all that touches files."""

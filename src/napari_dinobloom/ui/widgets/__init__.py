"""One widget, one file; each listens to the session of its viewer and none to another widget."""

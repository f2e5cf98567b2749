"""What a user sees in napari: session, workers, layers and widgets. The only room that may import napari and Qt."""

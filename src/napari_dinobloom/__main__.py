"""``python -m napari_dinobloom`` is the command ``napari-dinobloom``."""

from napari_dinobloom.cli import main

if __name__ == "__main__":
    main()

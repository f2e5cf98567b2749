"""Selection, focus and hover of the gallery and of the session: each follows the other, none in a circle."""

from __future__ import annotations

import numpy as np

from napari_dinobloom.ui.gallery.content import Content
from napari_dinobloom.ui.gallery.view import GalleryView
from napari_dinobloom.ui.session import Session


class SelectionLink:
    """Ties a view to a session until `detach`.

    Parameters
    ----------
    session : Session
        Its `selected`, `focus` and `hover` are set and followed.
    view : GalleryView
        Its selection and pointer are told and set.
    content : Content
        Told that a selection comes from here.
    """

    def __init__(self, session: Session, view: GalleryView, content: Content) -> None:
        self._session, self._view, self._content = session, view, content
        self._telling = False
        view.chosen.connect(self.tell)
        view.pointed.connect(self._point)
        session.events.selected.connect(self._on_selected)
        session.events.focus.connect(self._on_focus)
        session.events.hover.connect(self._on_hover)

    def detach(self) -> None:
        """Stop listening to the session, which lives on."""
        self._session.events.selected.disconnect(self._on_selected, missing_ok=True)
        self._session.events.focus.disconnect(self._on_focus, missing_ok=True)
        self._session.events.hover.disconnect(self._on_hover, missing_ok=True)

    def tell(self) -> None:
        """Select in the session what is selected in the view; the cell that was clicked last gets the focus."""
        model, places = self._view.cells, self._view.chosen_places()
        cells = model.cells(places)
        current = self._view.currentIndex().row()
        at = int(np.searchsorted(places, current))
        if at < len(places) and places[at] == current:
            cells = (*cells[:at], *cells[at + 1 :], cells[at])
        self._telling = True
        try:
            with self._content.own():
                self._session.select(*cells)
        finally:
            self._telling = False

    def show(self) -> None:
        """Select in the view what is selected in the session, and bring it into sight."""
        chosen = self._session.selected
        last = self._view.cells.places(chosen[-1:])
        self._view.show_chosen(self._view.cells.places(chosen), int(last[0]) if len(last) else -1)

    def _on_selected(self, _selected: tuple[str, ...]) -> None:
        """Other cells were selected."""
        if not self._telling:
            self.show()

    def _on_focus(self, cell: str) -> None:
        """Another cell is looked at: bring it into sight."""
        places = self._view.cells.places([cell] if cell else [])
        if len(places) and not self._telling:
            self._view.look_at(int(places[0]))

    def _point(self, cell: str) -> None:
        """The pointer is over another cell here."""
        if self._session.hover != cell:
            self._session.hover = cell

    def _on_hover(self, cell: str) -> None:
        """The pointer is over another cell, here or elsewhere."""
        self._view.show_hover(cell)

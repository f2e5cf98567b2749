"""The tree of gates as Qt's model: names with their colours, counts, shares, and two check marks."""

from __future__ import annotations

from typing import Any

from qtpy.QtCore import QAbstractItemModel, QMimeData, QModelIndex, QObject, Qt
from qtpy.QtGui import QColor, QFont, QIcon, QPainter, QPixmap

from napari_dinobloom.explore.gate_tree import GateNode, GateTree
from napari_dinobloom.explore.proportions import wilson
from napari_dinobloom.ui.gating import Gating
from napari_dinobloom.ui.texts import text, tip

COLUMNS = ("gates.column.name", "gates.column.n", "gates.column.parent", "gates.column.all", "gates.column.shown",
           "gates.column.locked")  # fmt: skip
NAME, N, OF_PARENT, OF_ALL, SHOWN, LOCKED = range(len(COLUMNS))
MIME = "application/x-napari-dinobloom-gate"
"""Kind of what is dragged: the keys of gates, each on its line."""

Flag, Role = Qt.ItemFlag, Qt.ItemDataRole


class GateModel(QAbstractItemModel):
    """Gates of the session's study; edits go to its `Gating`, which tells the session, which has `refresh` called.

    Parameters
    ----------
    gating : Gating
        The tree, its counts, and the acts.
    """

    def __init__(self, gating: Gating, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self._gating = gating
        self._children: dict[str, tuple[str, ...]] = {"": ()}
        self._nodes: dict[str, GateNode] = {}
        self._paths: dict[str, str] = {}
        self._totals: dict[str, tuple[int, int, int]] = {}
        self._writable = False

    def refresh(self) -> None:
        """Take over the tree and its counts; only where gates came, went or moved is the model made anew."""
        tree = self._gating.tree or GateTree()
        children = {key: tree.children(key) for key in ("", *tree.keys)}
        again = children != self._children
        if again:
            self.beginResetModel()
        self._children = children
        self._nodes = {key: tree[key] for key in tree.keys}
        self._paths = {key: tree.path(key) for key in tree.keys}
        self._totals = self._gating.totals()
        self._writable = not self._gating.why_not("add")
        if again:
            self.endResetModel()
            return
        for below in children.values():
            if below:
                self.dataChanged.emit(self.index_of(below[0]), self.index_of(below[-1], len(COLUMNS) - 1))

    def key_of(self, index: QModelIndex) -> str:
        """Key of the gate of an index; "" for none."""
        return f"g{index.internalId()}" if index.isValid() else ""

    def index_of(self, key: str, column: int = 0) -> QModelIndex:
        """Index of a gate; an invalid one for a gate that is not there."""
        if key not in self._nodes:
            return QModelIndex()
        return self.createIndex(self._children[self._nodes[key].parent].index(key), column, int(key[1:]))

    # What Qt asks for

    def rowCount(self, parent: QModelIndex = QModelIndex()) -> int:  # noqa: B008
        """Children of a gate."""
        return len(self._children.get(self.key_of(parent), ())) if parent.column() <= 0 else 0

    def columnCount(self, _parent: QModelIndex = QModelIndex()) -> int:  # noqa: B008
        """The same for all."""
        return len(COLUMNS)

    def index(self, row: int, column: int, parent: QModelIndex = QModelIndex()) -> QModelIndex:  # noqa: B008
        """Index of a child."""
        below = self._children.get(self.key_of(parent), ())
        if not (0 <= row < len(below) and 0 <= column < len(COLUMNS)):
            return QModelIndex()
        return self.createIndex(row, column, int(below[row][1:]))

    def parent(self, index: QModelIndex | None = None) -> Any:
        """Index of the parent of a gate; without an index, what owns the model."""
        if index is None:
            return super().parent()
        node = self._nodes.get(self.key_of(index))
        return QModelIndex() if node is None or not node.parent else self.index_of(node.parent)

    def flags(self, index: QModelIndex) -> Qt.ItemFlag:
        """What can be done with a cell of the table."""
        node = self._nodes.get(self.key_of(index))
        if node is None:  # beside all gates: a drop there goes to the top
            return Flag.ItemIsDropEnabled if self._writable else Flag.NoItemFlags
        found = Flag.ItemIsEnabled | Flag.ItemIsSelectable
        if self._writable:
            found |= Flag.ItemIsDropEnabled
            if index.column() in (SHOWN, LOCKED):
                found |= Flag.ItemIsUserCheckable
            if not node.locked:
                found |= Flag.ItemIsDragEnabled
                if index.column() == NAME:
                    found |= Flag.ItemIsEditable
        return found

    def headerData(self, section: int, orientation: Qt.Orientation, role: int = Role.DisplayRole) -> Any:
        """Titles and their tooltips."""
        if orientation == Qt.Orientation.Horizontal and 0 <= section < len(COLUMNS):
            if role == Role.DisplayRole:
                return text(COLUMNS[section])
            if role == Role.ToolTipRole:
                return tip(COLUMNS[section])
            if role == Role.TextAlignmentRole:
                return _side(section)
        return None

    def data(self, index: QModelIndex, role: int = Role.DisplayRole) -> Any:
        """What a cell of the table shows."""
        node = self._nodes.get(self.key_of(index))
        if node is None:
            return None
        column = index.column()
        if role in (Role.DisplayRole, Role.EditRole):
            return self._figure(node, column)
        if role == Role.ToolTipRole:
            return self._tip(node, column)
        if role == Role.TextAlignmentRole:
            return _side(column)
        if role == Role.CheckStateRole and column in (SHOWN, LOCKED):
            on = not node.hidden if column == SHOWN else node.locked
            return Qt.CheckState.Checked if on else Qt.CheckState.Unchecked
        if role == Role.DecorationRole and column == NAME:
            return swatch(node.colour)
        if role == Role.FontRole and node.hidden:
            font = QFont()
            font.setItalic(True)
            return font
        if role == Role.AccessibleTextRole:
            return f"{text(COLUMNS[column])}: {self._figure(node, column) or self._tip(node, column)}"
        return None

    def setData(self, index: QModelIndex, value: Any, role: int = Role.EditRole) -> bool:
        """Rename a gate, show or hide it, lock it or free it."""
        key, column = self.key_of(index), index.column()
        if key not in self._nodes:
            return False
        if role == Role.EditRole and column == NAME:
            name = str(value).strip()
            return name == self._nodes[key].gate.name or self._gating.rename(key, name)
        if role == Role.CheckStateRole and column in (SHOWN, LOCKED):
            on = Qt.CheckState(value) == Qt.CheckState.Checked
            return self._gating.hide(key, not on) if column == SHOWN else self._gating.lock(key, on)
        return False

    # Dragging

    def supportedDropActions(self) -> Qt.DropAction:
        """Gates are moved."""
        return Qt.DropAction.MoveAction

    def mimeTypes(self) -> list[str]:
        """Kind of what is dragged."""
        return [MIME]

    def mimeData(self, indexes: Any) -> QMimeData:
        """Keys of what is dragged."""
        data = QMimeData()
        keys = dict.fromkeys(self.key_of(index) for index in indexes)
        data.setData(MIME, "\n".join(keys).encode())
        return data

    def dropMimeData(
        self, data: QMimeData | None, _action: Qt.DropAction, row: int, _column: int, parent: QModelIndex
    ) -> bool:
        """Move gates below another one, or between two."""
        if data is None or not data.hasFormat(MIME):
            return False
        keys = [key for key in bytes(data.data(MIME).data()).decode().split("\n") if key in self._nodes]
        below = self.key_of(parent)
        after = [key for key in self._children.get(below, ())[row:] if key not in keys] if row >= 0 else []
        return bool(keys) and self._gating.move_all(keys, below, after[0] if after else None)

    # Within

    def _figure(self, node: GateNode, column: int) -> str:
        n, parent, all_ = self._totals.get(node.key, (0, 0, 0))
        if column == NAME:
            return node.gate.name
        if column in (SHOWN, LOCKED) or node.key not in self._totals:
            return ""
        return f"{n:,}" if column == N else percent(n, parent if column == OF_PARENT else all_)

    def _tip(self, node: GateNode, column: int) -> str:
        n, parent, all_ = self._totals.get(node.key, (0, 0, 0))
        if column == NAME:
            axes = ", ".join(getattr(node.gate, "axes", ()))
            return text("gates.about", path=self._paths[node.key], kind=text(f"gates.kind.{type(node.gate).__name__}"),
                        axes=axes)  # fmt: skip
        if column == SHOWN:
            return text("gates.is_hidden" if node.hidden else "gates.is_shown")
        if column == LOCKED:
            return text("gates.is_locked" if node.locked else "gates.is_free")
        total = all_ if column == OF_ALL else parent
        of = self._paths[node.parent] if node.parent and column != OF_ALL else text("gates.of_all")
        low, high = (100 * float(end) for end in wilson(n, total))
        if not total:
            return text("gates.share.none", of=of)
        return text("gates.share", n=n, total=total, of=of, percent=100 * n / total, low=low, high=high)


def percent(n: int, total: int) -> str:
    """A share with as many digits as people read; empty where there is nothing to take one of."""
    if not total:
        return ""
    share = 100 * n / total
    return f"{share:.2f}" if 0 < share < 1 else f"{share:.1f}"


def swatch(colour: str, side: int = 12) -> QIcon:
    """A square of a gate's colour, with a rim that shows on dark and light; the same in a selected row."""
    square = QPixmap(side, side)
    square.fill(QColor("#c0c0c0"))
    painter = QPainter(square)
    painter.fillRect(1, 1, side - 2, side - 2, QColor(colour))
    painter.end()
    drawn = QIcon()
    for mode in (QIcon.Mode.Normal, QIcon.Mode.Selected):
        drawn.addPixmap(square, mode)
    return drawn


def _side(column: int) -> Qt.AlignmentFlag:
    side = Qt.AlignmentFlag.AlignRight if column in (N, OF_PARENT, OF_ALL) else Qt.AlignmentFlag.AlignLeft
    return side | Qt.AlignmentFlag.AlignVCenter

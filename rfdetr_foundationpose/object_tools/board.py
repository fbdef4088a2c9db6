"""The printed ChArUco board on which an object is scanned: its picture in true size, and where it is in an image.

Board frame: origin in the middle of the printed squares, x right and y up on the sheet, z out of it; metres.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from ..errors import UserError
from ..types import CameraIntrinsics

DOTS_PER_MM = 10
MARKER_SHARE = 0.76
"""A marker takes this share of its square's side."""
LEAST_CORNERS = 8
MAX_REPROJECTION = 1.5
"""A board counts as found up to this reprojection error, in pixels, root mean square."""


class BoardError(UserError, ValueError):
    """A board that cannot be printed as asked."""


@dataclass(frozen=True)
class Board:
    """columns, rows: of squares. square: side, m. page: width, height of the sheet, m."""

    name: str
    columns: int
    rows: int
    square: float
    page: tuple[float, float]

    @property
    def size(self) -> tuple[float, float]:
        """Width and height of the printed squares, m."""
        return self.columns * self.square, self.rows * self.square

    def charuco(self) -> cv2.aruco.CharucoBoard:
        dictionary = cv2.aruco.getPredefinedDictionary(cv2.aruco.DICT_5X5_250)
        return cv2.aruco.CharucoBoard((self.columns, self.rows), self.square, MARKER_SHARE * self.square, dictionary)

    def picture(self, dots_per_mm: float = DOTS_PER_MM) -> NDArray[np.uint8]:
        """(H, W) uint8 of the squares alone."""
        width, height = (round(1e3 * v * dots_per_mm) for v in self.size)
        return np.asarray(self.charuco().generateImage((width, height), marginSize=0), np.uint8)


BOARDS = {
    "a4": Board("a4", 7, 10, 0.026, (0.210, 0.297)),
    "letter": Board("letter", 7, 9, 0.027, (0.2159, 0.2794)),
    "a3": Board("a3", 10, 14, 0.027, (0.297, 0.420)),
}
"""There is one board for each size of sheet. The squares fill it but for a margin that every printer leaves."""


def write_pdf(board: Board, path: Path) -> None:
    """One page of exactly the sheet's size: the squares, and below them a ruler of 100 mm to check the print with."""
    scale = DOTS_PER_MM * 1000
    width, height = (round(v * scale) for v in board.page)
    page = Image.new("L", (width, height), 255)
    squares = Image.fromarray(board.picture())
    left, top = (width - squares.width) // 2, round(0.010 * scale)
    page.paste(squares, (left, top))
    draw = ImageDraw.Draw(page)
    font = ImageFont.load_default(34)
    y = top + squares.height + 60
    x = left
    draw.line([(x, y), (x + 100 * DOTS_PER_MM, y)], fill=0, width=3)
    for mm in range(0, 101, 10):
        draw.line([(x + mm * DOTS_PER_MM, y - 14), (x + mm * DOTS_PER_MM, y + 14)], fill=0, width=3)
    text = (
        f"rfdetr-foundationpose object scan --board {board.name}: squares of {1e3 * board.square:g} mm. "
        "Print at 100 % (actual size); the line is 100 mm."
    )
    draw.text((x, y + 24), text, fill=0, font=font)
    path.parent.mkdir(parents=True, exist_ok=True)
    # Two colours: the PDF holds every dot as it is, without the blocks of JPEG.
    page.convert("1").save(path, "PDF", resolution=DOTS_PER_MM * 25.4)


@dataclass(frozen=True)
class BoardView:
    """T_cam_board: (4, 4) float64. corners: how many were found. error: reprojection, px (root mean square)."""

    T_cam_board: NDArray[np.float64]
    corners: int
    error: float


class BoardFinder:
    """Finds a board in images of one camera."""

    def __init__(self, board: Board, camera: CameraIntrinsics) -> None:
        self._board, self._K = board, camera.K
        parameters = cv2.aruco.DetectorParameters()
        parameters.cornerRefinementMethod = cv2.aruco.CORNER_REFINE_SUBPIX
        self._detector = cv2.aruco.CharucoDetector(
            board.charuco(), cv2.aruco.CharucoParameters(), parameters, cv2.aruco.RefineParameters()
        )

    def find(self, rgb: NDArray[np.uint8]) -> BoardView | None:
        """rgb: (H, W, 3). None where too few corners are seen, or they do not fit a plane of that size."""
        gray = cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY)
        corners, ids, _, _ = self._detector.detectBoard(gray)
        if ids is None or len(ids) < LEAST_CORNERS:
            return None
        points = np.asarray(self._board.charuco().getChessboardCorners(), np.float64)[np.asarray(ids).ravel()]
        pixels = np.asarray(corners, np.float64).reshape(-1, 2)
        # A line of corners leaves the turn about it open.
        if np.linalg.matrix_rank(points[:, :2] - points[:, :2].mean(0), tol=self._board.square / 2) < 2:
            return None
        ok, turn, shift = cv2.solvePnP(points, pixels, self._K, None, flags=cv2.SOLVEPNP_ITERATIVE)
        if not ok:
            return None
        turn, shift = cv2.solvePnPRefineLM(points, pixels, self._K, None, turn, shift)
        projected = cv2.projectPoints(points, turn, shift, self._K, None)[0].reshape(-1, 2)
        error = float(np.sqrt(((projected - pixels) ** 2).sum(1).mean()))
        if error > MAX_REPROJECTION:
            return None
        T = np.eye(4)
        T[:3, :3], T[:3, 3] = cv2.Rodrigues(turn)[0], shift.ravel()
        return BoardView(T @ self._from_middle(), len(points), error)

    def _from_middle(self) -> NDArray[np.float64]:
        """OpenCV's board frame (a corner of the sheet, y down, z into it) <- ours."""
        width, height = self._board.size
        T = np.eye(4)
        T[:3, :3] = np.diag([1.0, -1.0, -1.0])
        T[:3, 3] = (width / 2, height / 2, 0)
        return T

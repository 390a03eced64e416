"""Frames of videos: every frame once, in order, with its number and time, upright; damaged files are refused."""

from __future__ import annotations

import pickle
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np
import pytest
from torch.utils.data import DataLoader, Dataset

from kplab.data.sources.arrays import open_source
from kplab.data.sources.video import VideoSource
from kplab.errors import DataError
from kplab.viz.video import write_video

BITS, CELL = 8, 16
FRAMES = 40


def picture(number: int) -> np.ndarray:
    """A picture that states its number in binary, the highest bit left, on a row of cells; the lower half is red."""
    row = [255 * (number >> (BITS - 1 - bit) & 1) for bit in range(BITS)]
    image = np.repeat(np.kron(np.array(row), np.ones((2 * CELL, CELL)))[..., None], 3, axis=2)
    image[CELL:] = (200, 20, 20)
    return image.astype(np.uint8)


def number_of(image: np.ndarray) -> int:
    """The number that a picture states."""
    cells = image[:CELL, :, 0].reshape(CELL, BITS, CELL).mean(axis=(0, 2)) > 127
    return int("".join(str(int(cell)) for cell in cells), 2)


def video(path: Path, times: Sequence[int] = (), codec: str = "libx264", frames: int = FRAMES) -> Path:
    """A video of such pictures, with B-frames, whose order in the file differs; times in milliseconds."""
    options = {"bf": "3", "g": "12"} if codec == "libx264" else {}
    with av.open(str(path), "w", options={"movflags": "faststart"} if path.suffix == ".mp4" else {}) as container:
        stream = container.add_stream(codec, rate=25, options=options)
        stream.width, stream.height, stream.pix_fmt = BITS * CELL, 2 * CELL, "yuv420p"
        stream.codec_context.time_base = Fraction(1, 1000)
        for i in range(frames):
            frame = av.VideoFrame.from_ndarray(picture(i), format="rgb24")
            frame.pts, frame.time_base = (times[i] if times else 40 * i), Fraction(1, 1000)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    """Forty frames."""
    return video(tmp_path / "clip.mp4")


@pytest.mark.parametrize(
    ("name", "codec"), [("a.mp4", "libx264"), ("a.webm", "libvpx"), ("a.avi", "mpeg4"), ("a.mkv", "ffv1")]
)
def test_every_frame_is_read_once_and_in_order(tmp_path: Path, name: str, codec: str) -> None:
    source = VideoSource(video(tmp_path / name, codec=codec))
    assert [number_of(source.read(i)) for i in range(len(source))] == list(range(FRAMES))
    assert [source.name(i) for i in (0, 12)] == [f"{name}#000000", f"{name}#000012"]
    assert source.times == pytest.approx(
        np.arange(FRAMES) * 0.04, abs=0.002
    )  # the containers' unit is 1 ms, of AVI a frame


def test_frames_of_opencv(tmp_path: Path) -> None:
    writer = cv2.VideoWriter(str(tmp_path / "cv.mp4"), cv2.VideoWriter_fourcc(*"mp4v"), 10, (BITS * CELL, 2 * CELL))
    for i in range(FRAMES):
        writer.write(picture(i)[..., ::-1])
    writer.release()
    source = VideoSource(tmp_path / "cv.mp4")
    assert [number_of(source.read(i)) for i in range(len(source))] == list(range(FRAMES))
    assert source.times == pytest.approx(np.arange(FRAMES) / 10)


def test_times_are_those_of_the_file(tmp_path: Path) -> None:
    """Frames at irregular times, as phones record them, of which the first is not at 0."""
    times = np.cumsum(np.random.default_rng(0).integers(20, 90, FRAMES))
    source = VideoSource(video(tmp_path / "irregular.mp4", times.tolist()))
    assert source.times == pytest.approx((times - times[0]) / 1000, abs=1e-6)
    assert number_of(source.read(7)) == 7


def test_frames_are_read_in_any_order_by_threads_and_processes(clip: Path) -> None:
    source = VideoSource(clip)
    order = [5, 5, 39, 0, 12, 11]
    assert [number_of(source.read(i)) for i in order] == order
    with ThreadPoolExecutor(3) as pool:
        assert list(pool.map(lambda i: number_of(source.read(i)), range(FRAMES))) == list(range(FRAMES))

    class Frames(Dataset[int]):
        def __len__(self) -> int:
            return len(source)

        def __getitem__(self, i: int) -> int:
            return number_of(source.read(i))

    # the decoder that this process has opened is not used by the others
    assert np.concatenate([b.numpy() for b in DataLoader(Frames(), 4, num_workers=2)]).tolist() == list(range(FRAMES))
    assert number_of(pickle.loads(pickle.dumps(source)).read(3)) == 3
    with pytest.raises(IndexError):
        source.read(FRAMES)


#: Matrices of the header "tkhd" of MP4, as phones write them, and how often the picture is to be turned by 90 degrees anticlockwise.
TURNS = {
    "by 90 degrees clockwise": ((0, 1, -1, 0), -1),
    "by 180 degrees": ((-1, 0, 0, -1), 2),
    "by 90 degrees anticlockwise": ((0, -1, 1, 0), 1),
}


@pytest.mark.parametrize("name", TURNS)
def test_rotation_is_obeyed(clip: Path, name: str) -> None:
    (a, b, c, d), turns = TURNS[name]
    data = bytearray(clip.read_bytes())
    # 16.16 numbers and 2.30 in the last column, 44 bytes behind the name of the box (ISO/IEC 14496-12, 8.3.2)
    matrix = [a << 16, b << 16, 0, c << 16, d << 16, 0, 0, 0, 1 << 30]
    at = data.index(b"tkhd") + 44
    data[at : at + 36] = b"".join(value.to_bytes(4, "big", signed=True) for value in matrix)
    plain = VideoSource(clip).read(9)
    (clip.parent / "turned.mp4").write_bytes(data)
    turned = VideoSource(clip.parent / "turned.mp4").read(9)
    assert np.array_equal(turned, np.rot90(plain, turns))


def test_damaged_videos_are_refused(clip: Path) -> None:
    data = clip.read_bytes()
    bad = clip.parent / "bad.mp4"

    def refused(content: bytes, *words: str) -> None:
        bad.write_bytes(content)
        with pytest.raises(DataError) as caught:
            VideoSource(bad)
        assert all(word in str(caught.value) for word in (str(bad), *words)), caught.value

    refused(b"", "is empty")
    refused(b"no video at all " * 500, "can't decode it", "ffmpeg -i IN")
    refused(data[: len(data) * 3 // 4], "damaged or truncated")
    refused(data[:200], "holds no video")
    middle = (data.index(b"mdat") + len(data)) // 2
    refused(data[:middle] + bytes(200) + data[middle + 200 :], "damaged or truncated")
    with pytest.raises(DataError, match="no such video"):
        VideoSource(clip.parent / "missing.mp4")


def test_files_without_pictures_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "sound.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("aac", rate=44100)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), dtype=np.float32), format="fltp", layout="mono")
        frame.sample_rate = 44100
        container.mux(stream.encode(frame))
        container.mux(stream.encode())
    with pytest.raises(DataError, match="holds no video, only audio"):
        VideoSource(path)


@pytest.mark.parametrize(
    "text", ["#EXTM3U\n#EXTINF:1,\n{clip}\n#EXT-X-ENDLIST\n", "ffconcat version 1.0\nfile '{clip}'\n"]
)
def test_playlists_are_not_followed(clip: Path, text: str) -> None:
    """A file of this name could otherwise read any other file, or an address of a network."""
    path = clip.parent / "list.mp4"
    path.write_text(text.format(clip=clip))
    with pytest.raises(DataError, match="can't decode it"):
        VideoSource(path)


def test_a_video_that_was_overwritten_is_reported(clip: Path, tmp_path: Path) -> None:
    source = VideoSource(clip)
    video(clip, frames=10)
    with pytest.raises(DataError, match="Was it overwritten"):
        source.read(30)


def test_a_video_is_many_images(clip: Path) -> None:
    source, single = open_source(str(clip))
    assert isinstance(source, VideoSource)
    assert (len(source), single) == (FRAMES, False)


def test_written_videos_have_all_pictures(tmp_path: Path) -> None:
    """Odd sizes lose a row or a column; everything else is read back."""
    pictures = [np.pad(picture(i), ((0, 1), (0, 1), (0, 0))) for i in range(12)]
    source = VideoSource(write_video(tmp_path / "new" / "out.mp4", pictures, rate=12.5))
    assert [number_of(source.read(i)) for i in range(len(source))] == list(range(12))
    assert source.times == pytest.approx(np.arange(12) / 12.5)
    with pytest.raises(ValueError, match="at least one picture"):
        write_video(tmp_path / "none.mp4", [])
    with pytest.raises(ValueError, match="picture 1 is 64x32"):
        write_video(tmp_path / "two.mp4", [picture(0), picture(1)[:, :64]])

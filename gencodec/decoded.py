"""A .gcv file while it is decoded: frames as they are asked for, ranges, what is whole of damaged files.

.gcv ─► Reader ─► Codec.decode ─► DecodedVideo ─► frames, or save
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from gencodec import wire, wire_header
from gencodec.codec import Codec, CorruptStream, UnreadableInput, VideoInfo
from gencodec.container import Reader
from gencodec.results import CodingResult, Tally
from gencodec.video import write_video

if TYPE_CHECKING:
    from torch import Tensor

Progress = Callable[[int, "int | None"], None]  # frames done, frames in all if known


class Stream:
    """A .gcv file that can be opened again: a path, or a binary file object, which stays open and in use."""

    def __init__(self, source: str | Path | BinaryIO, *, partial: bool = False, max_pixels: int) -> None:
        self._source = source
        self._limits: dict[str, Any] = {"partial": partial, "max_pixels": max_pixels}
        self.partial = partial
        self._reader = None if isinstance(source, (str, Path)) else Reader(source, **self._limits)

    @contextmanager
    def reader(self) -> Iterator[Reader]:
        """Give a `Reader` at the header's end. A source that cannot seek has only one."""
        if self._reader is not None:
            yield self._reader
            return
        assert isinstance(self._source, (str, Path))
        try:
            file = open(self._source, "rb")  # noqa: SIM115 - reading has other errors
        except OSError as error:
            raise UnreadableInput(f"cannot read {self._source}: {error.strerror}") from error
        with file:
            yield Reader(file, **self._limits)


@dataclass
class DecodedVideo:
    """The frames of a .gcv file, uint8 RGB (3, H, W), decoded anew by every iteration; nothing is kept.

    `latents_sha256` and `result` are there once an iteration has reached the end.
    """

    stream: Stream
    codec: Codec
    header: wire_header.Header
    num_frames: int | None  # of the file, not of the selection
    selection: tuple[int, int | None]
    result: CodingResult | None = None
    lost_gops: int = 0  # with partial: GOPs of the last iteration that could not be read

    @property
    def info(self) -> VideoInfo:
        """Size, rate and number of frames of the selection; None for a number that the file does not say."""
        start, stop = self.selection
        stop = self.num_frames if stop is None else stop
        count = None if stop is None else stop - start
        return VideoInfo(self.header.width, self.header.height, self.header.fps, count)

    @property
    def latents_sha256(self) -> str | None:
        """SHA-256 of all symbols once the whole file was decoded; None before, and for a range of it."""
        return self.result.latents_sha256 if self.result else None

    def seek(self, frame: int) -> DecodedVideo:
        """Return the video from `frame` on; decoding begins with the GOP that holds it."""
        selection = check_range((frame, self.selection[1]), self.num_frames, partial=self.stream.partial)
        return DecodedVideo(self.stream, self.codec, self.header, self.num_frames, selection)

    def save(self, target: str | Path | BinaryIO, *, on_progress: Progress | None = None) -> CodingResult:
        """Write the frames to .mp4, .mkv, .y4m or a folder of PNGs, in one piece at the end."""
        self.result = None
        write_video(target, self._frames(on_progress), self.info)
        assert self.result
        return self.result

    def __iter__(self) -> Iterator[Tensor]:
        return self._frames(None)

    def _frames(self, on_progress: Progress | None) -> Iterator[Tensor]:
        start, stop = self.selection
        tally = Tally()
        began = time.perf_counter()
        with self.stream.reader() as reader:
            if reader.header != self.header:
                raise CorruptStream("the file was changed after it was opened")
            numbered = (
                self._partial_frames(reader, tally)
                if self.stream.partial
                else self._all_frames(reader, tally)
            )
            wanted = (frame for number, frame in numbered if number >= start)
            yield from tally.counted(wanted, self.info.num_frames, on_progress)
            if not tally.frames and self.stream.partial:
                raise CorruptStream("no frame of the file could be decoded")
            if stop is not None and not self.stream.partial and tally.frames != stop - start:
                raise ValueError(f"frames {start}:{stop} were asked for, the file ends before that")
            seconds = time.perf_counter() - began
            self.lost_gops = reader.lost_gops
            is_whole = self.selection == (0, None) and not self.stream.partial
            size = reader.file_bytes
            self.result = tally.result(self.codec, self.header, size, seconds, is_whole=is_whole)

    def _all_frames(self, reader: Reader, tally: Tally) -> Iterator[tuple[int, Tensor]]:
        """Yield (number, frame) from the GOP before the selection on; one call of the codec decodes all."""
        start, stop = self.selection
        gops = reader.gops(start, stop)
        first = next(gops, None)
        if first is None:
            return
        number, due = first.first_frame, first.first_frame

        def packets() -> Iterator[Any]:
            nonlocal due
            gop: wire.Gop | None = first
            while gop:
                for packet in gop.packets:
                    due = packet.first_frame + packet.num_frames
                    tally.packet(packet)
                    yield packet
                gop = next(gops, None)

        source = packets()
        for frame in self._decode(source, tally):
            yield number, frame
            number += 1
            if number == stop:
                return
        if next(source, None) is not None or number != due:
            raise CorruptStream(
                f"{self.codec.name} gave {number} frames where the stream holds more, or fewer"
            )

    def _partial_frames(self, reader: Reader, tally: Tally) -> Iterator[tuple[int, Tensor]]:
        """Yield (number, frame) of every GOP that can be decoded, each by its own call of the codec."""
        start, stop = self.selection
        for gop in reader.gops(start, stop):
            number = gop.first_frame
            try:
                for frame in self._decode(gop.packets, tally):
                    if stop is not None and number >= stop:
                        return
                    yield number, frame
                    number += 1
            except CorruptStream:
                reader.lost_gops += 1
            for packet in gop.packets:
                tally.packet(packet)

    def _decode(self, packets: Iterable[Any], tally: Tally) -> Iterator[Tensor]:
        return self.codec.decode(packets, self.header.video, seed=self.header.seed, on_symbols=tally.symbols)


def check_range(
    frames: tuple[int, int | None] | None, num_frames: int | None, *, partial: bool
) -> tuple[int, int | None]:
    """Return a valid half-open range; (0, None) is all. Raises ValueError."""
    start, stop = frames or (0, None)
    if start < 0 or (stop is not None and stop <= start):
        raise ValueError(
            f"frames A:B are counted from 0 and B is above A, got {start}:{'' if stop is None else stop}"
        )
    if num_frames is not None and not partial and max(start + 1, stop or 0) > num_frames:
        raise ValueError(f"the video has frames 0:{num_frames}, got {start}:{'' if stop is None else stop}")
    return start, None if stop == num_frames else stop

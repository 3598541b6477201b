"""Frames in and out: files with known planes must come back as the RGB that follows from them by hand."""

import io
import os
import struct
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
import torch
from test_colour import rgb_by_hand

from gencodec import video_in
from gencodec.codec import UnreadableInput, VideoInfo
from gencodec.video import MAX_SIDE, VideoWriter, open_video, write_video
from gencodec.video_frame import frame_to_rgb
from gencodec.video_in import square_pixels
from gencodec.video_timing import is_constant

CODES = {"bt601": 5, "bt709": 1, "bt2020": 9}  # ITU-T H.273
INFO = VideoInfo(64, 48, Fraction(25), 10)


def gradient(width=64, height=48, num_frames=10):
    """A smooth video, uint8 (T, 3, H, W), every frame another."""
    x = torch.linspace(0, 255, width).expand(height, -1)
    y = torch.linspace(0, 255, height)[:, None].expand(-1, width)
    frames = [torch.stack([x, y, torch.full_like(x, 20.0 * t % 256)]) for t in range(num_frames)]
    return torch.stack(frames).to(torch.uint8)


def make_video(
    path, *, codec="ffv1", pixel_format="yuv444p", planes=None, pts=None, rate=Fraction(25), **tags
):
    """Write frames whose planes are `planes(index, plane, height, width)`, as integers of the format's depth.

    `tags` are attributes of the encoder, and `options`, `num_frames`, `size`.
    """
    options, num_frames = tags.pop("options", {}), tags.pop("num_frames", 10)
    width, height = tags.pop("size", (64, 48))
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=rate, options=options)
        stream.width, stream.height, stream.pix_fmt = width, height, pixel_format
        stream.codec_context.time_base = 1 / rate
        for name, value in tags.items():
            setattr(stream.codec_context, name, value)
        for index in range(num_frames):
            frame = make_frame(width, height, pixel_format, index, planes or counting_planes)
            frame.pts, frame.time_base = index if pts is None else pts[index], 1 / rate
            frame.colorspace, frame.color_range = tags.get("colorspace", 2), tags.get("color_range", 0)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def make_frame(width, height, pixel_format, index, planes):
    frame = av.VideoFrame(width, height, pixel_format)
    dtype = np.uint8 if frame.format.components[0].bits <= 8 else np.dtype("<u2")
    for number, plane in enumerate(frame.planes):
        samples = planes(index, number, plane.height, plane.width).astype(dtype)
        rows = np.zeros((plane.height, plane.line_size), np.uint8)
        samples = np.ascontiguousarray(samples).view(np.uint8)
        rows[:, : samples.shape[1]] = samples
        plane.update(rows.tobytes())
    return frame


def counting_planes(index, plane, height, width):
    """Frame t has luma 16 + 20 t and no colour: 20 t can be read off a frame."""
    return np.full((height, width), 16 + 20 * index if plane == 0 else 128)


def coloured_planes(bits, seed=0):
    """Smooth planes within the codes of either range."""

    def planes(index, plane, height, width):
        y, x = np.mgrid[0:height, 0:width]
        phase = index + 2 * plane + seed
        wave = np.sin(x / max(width, 1) * 4 + phase) * np.cos(y / max(height, 1) * 3 + phase)
        return np.round((128 + 60 * wave) * 2 ** (bits - 8))

    return planes


def upsampled(plane, height, width, vertical_site=0.5):
    """Chroma at luma size by interp: left-sited, and `vertical_site` luma rows below the first."""
    n, m = plane.shape
    if m < width:
        plane = np.stack([np.interp(np.arange(width) / 2, np.arange(m), row) for row in plane])
    if n < height:
        position = (np.arange(height) - vertical_site) / 2
        plane = np.stack([np.interp(position, np.arange(n), column) for column in plane.T], axis=1)
    return plane


def read(source, **options):
    with open_video(source, **options) as reader:
        return torch.stack(list(reader))


def unreadable(source, match, **options):
    with pytest.raises(UnreadableInput, match=match) as caught, open_video(source, **options) as reader:
        list(reader)
    assert "\n" not in str(caught.value)


def psnr(a, b):
    return 10 * torch.log10(255**2 / ((a.float() - b.float()) ** 2).mean())


# in: colour


@pytest.mark.parametrize("matrix", CODES)
@pytest.mark.parametrize("color_range", [1, 2])
@pytest.mark.parametrize(
    ("pixel_format", "bits"),
    [
        ("yuv420p", 8),
        ("yuv422p", 8),
        ("yuv444p", 8),
        ("yuv420p10le", 10),
        ("yuv422p10le", 10),
        ("yuv444p12le", 12),
        ("yuva420p", 8),
    ],
)
def test_tagged_colour_is_honoured(tmp_path, matrix, color_range, pixel_format, bits):
    planes = coloured_planes(bits)
    path = make_video(
        tmp_path / "in.mkv",
        pixel_format=pixel_format,
        planes=planes,
        num_frames=2,
        size=(31, 17),
        colorspace=CODES[matrix],
        color_range=color_range,
    )
    site = 0 if matrix == "bt2020" else 0.5
    for index, frame in enumerate(read(path)):
        y = planes(index, 0, 17, 31)
        half = av.VideoFormat(pixel_format, 31, 17)
        u, v = (
            upsampled(planes(index, c, half.chroma_height(), half.chroma_width()), 17, 31, site)
            for c in (1, 2)
        )
        expected = rgb_by_hand(y, u, v, matrix, bits, color_range == 2)
        assert np.abs(frame.numpy() - expected).max() <= 0.51


@pytest.mark.parametrize(("height", "matrix"), [(48, "bt601"), (720, "bt709")])
def test_untagged_colour_follows_the_number_of_lines_and_limited_range(tmp_path, height, matrix):
    planes = coloured_planes(8)
    path = make_video(tmp_path / "in.mkv", planes=planes, num_frames=1, size=(16, height))
    expected = rgb_by_hand(*(planes(0, c, height, 16) for c in range(3)), matrix, 8, False)
    assert np.abs(read(path)[0].numpy() - expected).max() <= 0.51


@pytest.mark.parametrize("pixel_format", ["gbrp", "bgr0", "gray", "gray10le", "gbrp10le"])
def test_rgb_and_grey_planes(tmp_path, pixel_format):
    bits = av.VideoFormat(pixel_format).components[0].bits
    top = 2**bits - 1

    def planes(index, plane, height, width):  # of bgr0: the bytes B G R 0, four a pixel
        width = 4 * width if pixel_format == "bgr0" else width
        return (np.arange(height * width).reshape(height, width) * 7 + 50 * plane) % (top + 1)

    path = make_video(
        tmp_path / "in.avi",
        codec="utvideo" if pixel_format == "gbrp" else "ffv1",
        pixel_format=pixel_format,
        planes=planes,
        num_frames=1,
        size=(20, 6),
    )
    if pixel_format == "bgr0":
        expected = planes(0, 0, 6, 20).reshape(6, 20, 4)[..., 2::-1].transpose(2, 0, 1)
    elif "gray" in pixel_format:
        expected = np.clip((planes(0, 0, 6, 20) / 2 ** (bits - 8) - 16) * 255 / 219, 0, 255)
    else:
        expected = np.stack([planes(0, p, 6, 20) * 255 / top for p in (2, 0, 1)])  # planes are G B R
    assert np.abs(read(path)[0].numpy() - expected).max() <= 0.51


@pytest.mark.parametrize("pixel_format", ["nv12", "yuyv422", "p010le"])
def test_interleaved_planes_are_taken_apart(pixel_format):
    plain = {"nv12": "yuv420p", "yuyv422": "yuv422p", "p010le": "yuv420p10le"}[pixel_format]
    bits = 10 if "10" in plain else 8
    frame = make_frame(16, 8, plain, 0, coloured_planes(bits))
    packed = frame.reformat(format=pixel_format)
    assert packed.format.name == pixel_format
    assert torch.equal(frame_to_rgb(packed, codec="x"), frame_to_rgb(frame, codec="x"))


def test_y4m_says_where_its_chroma_lies(tmp_path):
    luma, u = np.full((4, 4), 128, np.uint8), np.array([[90, 160], [120, 200]], np.uint8)
    for tag, x_site, y_site in (("420jpeg", 0.5, 0.5), ("420mpeg2", 0, 0.5), ("420paldv", 0, 0)):
        path = tmp_path / f"{tag}.y4m"
        header = f"YUV4MPEG2 W4 H4 F25:1 Ip A1:1 C{tag}\nFRAME\n".encode()
        path.write_bytes(header + luma.tobytes() + u.tobytes() + bytes([128] * 4))
        wide = np.stack([np.interp((np.arange(4) - x_site) / 2, np.arange(2), row) for row in u])
        full = np.stack([np.interp((np.arange(4) - y_site) / 2, np.arange(2), c) for c in wide.T], axis=1)
        expected = rgb_by_hand(luma.astype(float), full, np.full((4, 4), 128.0), "bt601", 8, False)
        assert np.abs(read(path)[0].numpy() - expected).max() <= 0.51


# in: containers, sizes, geometry


@pytest.mark.parametrize(
    ("suffix", "codec", "pixel_format"),
    [
        ("mp4", "libx264", "yuv420p"),
        ("mov", "libx264", "yuv444p"),
        ("mkv", "libx264", "yuv420p10le"),
        ("mkv", "ffv1", "yuv420p"),
        ("webm", "libvpx-vp9", "yuv420p"),
        ("webm", "libvpx", "yuv420p"),
        ("avi", "mpeg4", "yuv420p"),
        ("avi", "rawvideo", "yuv420p"),
        ("avi", "libx264", "yuv420p"),
        ("y4m", "wrapped_avframe", "yuv420p"),
    ],
)
def test_every_container(tmp_path, suffix, codec, pixel_format):
    planes = None
    if "10" in pixel_format:
        planes = lambda *a: counting_planes(*a) * 4  # noqa: E731
    path = make_video(tmp_path / f"in.{suffix}", codec=codec, pixel_format=pixel_format, planes=planes)
    with open_video(path) as reader:
        assert reader.info == INFO
        frames = list(reader)
        again = list(reader)
    assert [f.dtype for f in frames] == [torch.uint8] * 10
    assert all(f.shape == (3, 48, 64) and f.is_contiguous() for f in frames)
    levels = torch.stack(frames).float().mean(dim=(1, 2, 3))
    assert (levels - torch.arange(10) * 20 * 255 / 219).abs().max() < 3
    assert all(torch.equal(a, b) for a, b in zip(frames, again, strict=True))
    for a, b in ((0, 3), (4, 7), (9, None), (7, 99)):
        with open_video(path, frames=(a, b)) as part:
            got = list(part)
            assert part.info.num_frames == len(got) == len(frames[a:b])
        assert all(torch.equal(x, y) for x, y in zip(got, frames[a:b], strict=True))


@pytest.mark.parametrize("size", [(1, 1), (2, 1), (1, 3), (63, 47), (17, 2)])
@pytest.mark.parametrize("suffix", ["mp4", "mkv", "y4m", ""])
def test_any_size_passes_through(tmp_path, size, suffix):
    video = gradient(*size, num_frames=3)
    target = tmp_path / (f"out.{suffix}" if suffix else "out")
    write_video(target, video, VideoInfo(*size, Fraction(25)))
    back = read(target)
    assert back.shape == video.shape
    if suffix in ("y4m", ""):
        assert torch.equal(back, video)


@pytest.mark.parametrize(
    ("matrix", "turn"),
    [
        ((0, 1, -1, 0), lambda x: x.rot90(-1, (2, 3))),
        ((-1, 0, 0, -1), lambda x: x.rot90(2, (2, 3))),
        ((0, -1, 1, 0), lambda x: x.rot90(1, (2, 3))),
        ((-1, 0, 0, 1), lambda x: x.flip(3)),
        ((0, 1, 1, 0), lambda x: x.transpose(2, 3)),
    ],
)
def test_display_matrix_turns_the_picture(tmp_path, matrix, turn):
    write_video(tmp_path / "plain.mp4", gradient(num_frames=2), VideoInfo(64, 48, Fraction(25)))
    data = bytearray((tmp_path / "plain.mp4").read_bytes())
    # ISO/IEC 14496-12, 8.3.2: the matrix a b u, c d v, x y w is 40 bytes behind the name of a tkhd box
    start = data.index(b"tkhd") + 4 + 40
    for offset, value in zip((0, 4, 12, 16), matrix, strict=True):
        data[start + offset : start + offset + 4] = (value * 65536).to_bytes(4, "big", signed=True)
    (tmp_path / "turned.mp4").write_bytes(data)
    expected = turn(read(tmp_path / "plain.mp4"))
    with open_video(tmp_path / "turned.mp4") as reader:
        assert (reader.info.height, reader.info.width) == expected.shape[2:]
        assert torch.equal(torch.stack(list(reader)), expected)


@pytest.mark.parametrize(
    ("aspect", "size"), [(Fraction(4, 3), (85, 48)), (Fraction(1, 2), (64, 96)), (Fraction(1), (64, 48))]
)
def test_pixels_are_made_square(tmp_path, aspect, size):
    path = make_video(
        tmp_path / "in.mp4", codec="libx264", pixel_format="yuv420p", sample_aspect_ratio=aspect, num_frames=2
    )
    with open_video(path) as reader:
        assert (reader.info.width, reader.info.height) == size
        assert [tuple(f.shape) for f in reader] == [(3, size[1], size[0])] * 2


def test_square_pixels():
    assert square_pixels(720, 576, Fraction(16, 15)) == (768, 576)
    assert square_pixels(720, 480, Fraction(8, 9)) == (720, 540)
    assert square_pixels(10, 20, None) == square_pixels(10, 20, Fraction(0)) == (10, 20)


def test_size_resizes_smoothly(tmp_path):
    video = gradient()
    write_video(tmp_path / "in.y4m", video, INFO)
    with open_video(tmp_path / "in.y4m", size=(32, 24)) as reader:
        assert (reader.info.width, reader.info.height) == (32, 24)
        small = torch.stack(list(reader))
    means = video.float().reshape(10, 3, 24, 2, 32, 2).mean(dim=(3, 5))
    assert (small.float() - means)[:, :, 1:-1, 1:-1].abs().max() <= 1.5
    checks = ((torch.arange(64)[:, None] + torch.arange(64)) % 2 * 255).to(torch.uint8).expand(1, 3, 64, 64)
    inside = read(checks, size=(16, 16))[..., 1:-1, 1:-1]  # finer than the result can show: must turn grey
    assert (inside.float() - 127.5).abs().max() < 4


# in: time


def test_variable_frame_rate_is_refused_with_a_command(tmp_path):
    stall, pairs = [0, 1, 2, 3, 7, 8, 9, 10, 11, 12], [0, 1, 3, 4, 6, 7, 9, 10, 12, 13]
    for pts in (stall, pairs, [0, 2, 3, 5, 8, 9, 13, 14, 15, 19]):
        for suffix in ("mp4", "mkv"):
            path = make_video(
                tmp_path / f"in.{suffix}", codec="libx264", pixel_format="yuv420p", pts=pts, num_frames=10
            )
            unreadable(path, "variable frame rate.*ffmpeg -i")


@pytest.mark.parametrize("fps", ["25", "30", "60", "120", "30000/1001", "24000/1001", "1/2", "1235/67"])
@pytest.mark.parametrize("suffix", ["mp4", "mkv"])
def test_constant_rates_come_back_exactly(tmp_path, fps, suffix):
    fps = Fraction(fps)
    write_video(tmp_path / f"out.{suffix}", gradient(16, 16, 20), VideoInfo(16, 16, fps))
    with open_video(tmp_path / f"out.{suffix}") as reader:
        assert (reader.info.fps, reader.info.num_frames) == (fps, 20)
    with av.open(str(tmp_path / f"out.{suffix}")) as container:
        times = [frame.pts * frame.time_base for frame in container.decode(video=0)]
    limit = 0 if suffix == "mp4" else Fraction(1, 2000)  # Matroska counts milliseconds
    assert all(abs(time - i / fps) <= limit for i, time in enumerate(times))


def test_jitter_and_a_late_first_frame_are_accepted(tmp_path):
    rate = Fraction(1000)  # pts in ms; 25 fps
    jitter = [1, -2, 0, 2, -1, 1, 0, -2, 2, 0]
    late = [40 * i + 500 for i in range(10)]
    first = [15, *(40 * i for i in range(1, 10))]
    for pts in ([40 * i + 5 + j for i, j in enumerate(jitter)], late, first):
        path = make_video(tmp_path / "in.mkv", pts=pts, rate=rate, codec="libx264", pixel_format="yuv420p")
        with open_video(path) as reader:
            assert abs(reader.info.fps - 25) < 0.2
            assert len(list(reader)) == 10


def test_is_constant():
    tick = Fraction(1, 1000)
    ntsc = [round(i * 1001 / 30) for i in range(5000)]
    assert is_constant(ntsc, tick, Fraction(30000, 1001))
    assert not is_constant(ntsc, tick, Fraction(30))  # five frames of drift
    assert not is_constant([0, 40, 80, 160, 200], tick, Fraction(25))
    assert is_constant([0], tick, Fraction(25))


# in: reading


def test_reading_is_lazy():
    asked = []

    def frames():
        for index, frame in enumerate(gradient()):
            asked.append(index)
            yield frame

    reader = iter(open_video(frames()))
    assert asked == [0]  # its size had to be known
    for index in range(3):
        next(reader)
        assert asked == list(range(index + 1))


def test_files_are_decoded_as_asked_and_from_the_key_frame(tmp_path, monkeypatch):
    path = make_video(
        tmp_path / "in.mp4",
        codec="libx264",
        pixel_format="yuv420p",
        num_frames=12,
        options={"g": "4", "keyint_min": "4", "sc_threshold": "0"},
    )
    everything = read(path)
    converted = []
    real = video_in.frame_to_rgb
    monkeypatch.setattr(
        video_in, "frame_to_rgb", lambda frame, **k: converted.append(frame.pts) or real(frame, **k)
    )
    frames = iter(open_video(path, frames=(6, None)))
    converted.clear()  # the first frame is looked at when a file is opened
    assert torch.equal(next(frames), everything[6])
    assert len(converted) == 1

    decoded = []
    real_seek = video_in._decode_after_seek

    def spy(container, stream, target, timing):
        key_frames = [p.pts for p in container.demux(stream) if p.is_keyframe and p.pts is not None]
        decoded.append(max(p for p in key_frames if p <= target))
        yield from real_seek(container, stream, target, timing)

    monkeypatch.setattr(video_in, "_decode_after_seek", spy)
    monkeypatch.setattr(video_in, "_skip", lambda frames, count: iter(()))  # the way without seeking
    assert torch.equal(read(path, frames=(6, 9)), everything[6:9])
    assert len(decoded) == 1
    assert decoded[0] > 0


def test_a_bad_seek_falls_back_to_the_beginning(tmp_path, monkeypatch):
    path = make_video(tmp_path / "in.mp4", codec="libx264", pixel_format="yuv420p")
    everything = read(path)

    def bad(*args):
        raise video_in._BadSeekError
        yield

    monkeypatch.setattr(video_in, "_decode_after_seek", bad)
    assert torch.equal(read(path, frames=(6, 9)), everything[6:9])


def test_tensors_lists_and_iterators():
    video = gradient()
    for source in (video, list(video)):
        reader = open_video(source, frames=(2, 5), fps=30)
        assert reader.info == VideoInfo(64, 48, Fraction(30), 3)
        assert torch.equal(torch.stack(list(reader)), video[2:5])
        assert torch.equal(torch.stack(list(reader)), video[2:5])
    reader = open_video(iter(video), frames=(2, 5))
    assert reader.info.num_frames is None
    assert torch.equal(torch.stack(list(reader)), video[2:5])
    with pytest.raises(ValueError, match="can be read once"):
        list(reader)


def test_file_objects(tmp_path):
    class Pipe:
        """A stream that cannot seek."""

        def __init__(self, data):
            self._file = io.BytesIO(data)

        def read(self, size=-1):
            return self._file.read(size)

    for name in ("mp4", "y4m", "mkv"):
        buffer = io.BytesIO()
        write_video(buffer, gradient(), INFO, format=name)
        path = tmp_path / f"out.{name}"
        path.write_bytes(buffer.getvalue())
        expected = read(path)
        for source in (io.BytesIO(buffer.getvalue()), Pipe(buffer.getvalue()), path.open("rb")):
            assert torch.equal(read(source), expected)
            getattr(source, "close", int)()
        write_video(tmp_path / f"path.{name}", gradient(), INFO)
        with (tmp_path / f"again.{name}").open("wb") as named:
            write_video(named, gradient(), INFO)
        for again in ("path", "again"):  # x264's AVX-512 code gives other bytes now and then at such sizes
            assert (read(tmp_path / f"{again}.{name}").float() - expected).abs().mean() < 1
    failed = io.BytesIO()
    with pytest.raises(ValueError, match="uint8"):
        write_video(failed, [gradient()[0], gradient()[0].float()], INFO, format="mp4")
    assert failed.getvalue() == b""
    with pytest.raises(ValueError, match="needs format="):
        write_video(io.BytesIO(), gradient(), INFO)


def test_png_folder(tmp_path):
    video = gradient(num_frames=12)
    write_video(tmp_path / "out", video, INFO)
    assert sorted(os.listdir(tmp_path / "out"))[:2] == ["000000.png", "000001.png"]
    with open_video(tmp_path / "out", fps=Fraction(30000, 1001)) as reader:
        assert reader.info == VideoInfo(64, 48, Fraction(30000, 1001), 12)
        assert torch.equal(torch.stack(list(reader)), video)
    for index in range(12):
        (tmp_path / "out" / f"{index:06d}.png").rename(tmp_path / "out" / f"{index}.png")
    assert torch.equal(read(tmp_path / "out", frames=(1, 11)), video[1:11])  # 2.png comes before 10.png
    (tmp_path / "out" / "notes.txt").write_text("not a frame")
    assert open_video(tmp_path / "out").info.num_frames == 12


@pytest.mark.parametrize("pixel_format", ["rgba", "gray", "ya8", "pal8", "rgb48be", "gray16be"])
def test_other_kinds_of_png(tmp_path, pixel_format):
    grey = "gray" in pixel_format or "ya" in pixel_format
    levels = np.arange(48, dtype=np.uint8).reshape(6, 8) * 5
    rgb = np.stack([levels] * 3) if grey else np.stack([levels, 255 - levels, levels // 2])
    if pixel_format == "pal8":
        rgb = np.broadcast_to(np.array([200, 100, 50], np.uint8)[:, None, None], (3, 6, 8))
    samples = rgb[0] if grey else np.ascontiguousarray(rgb.transpose(1, 2, 0))
    if "48" in pixel_format or "16" in pixel_format:
        frame = av.VideoFrame.from_ndarray(samples.astype(np.uint16) * 257, format=pixel_format)
    elif pixel_format == "pal8":
        palette = np.zeros((256, 4), np.uint8)
        palette[7] = (255, 200, 100, 50)
        frame = av.VideoFrame.from_ndarray((np.full((6, 8), 7, np.uint8), palette), format="pal8")
    else:
        plain = av.VideoFrame.from_ndarray(samples, format="gray" if grey else "rgb24")
        frame = plain.reformat(format=pixel_format)
    encoder = av.CodecContext.create("png", "w")
    encoder.width, encoder.height, encoder.pix_fmt, encoder.time_base = 8, 6, pixel_format, Fraction(1, 25)
    (tmp_path / "0.png").write_bytes(b"".join(map(bytes, [*encoder.encode(frame), *encoder.encode(None)])))
    assert np.abs(read(tmp_path)[0].numpy().astype(int) - rgb).max() == 0


def jpeg_of(rgb, pixel_format="yuvj444p"):
    """A JPEG file of uint8 RGB (3, H, W), as good as the encoder makes it."""
    frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(rgb.permute(1, 2, 0).numpy()), format="rgb24")
    frame = frame.reformat(format=pixel_format, dst_colorspace="ITU601", dst_color_range="JPEG")
    encoder = av.CodecContext.create("mjpeg", "w")
    encoder.width, encoder.height, encoder.pix_fmt = frame.width, frame.height, pixel_format
    encoder.time_base, encoder.options = Fraction(1, 25), {"qmin": "1", "qmax": "1"}
    frame.pts = 0
    return b"".join(map(bytes, [*encoder.encode(frame), *encoder.encode(None)]))


def with_thumbnail(jpeg, thumbnail):
    """With another JPEG in a segment before the picture, as cameras write them."""
    return jpeg[:2] + b"\xff\xe1" + (len(thumbnail) + 2).to_bytes(2, "big") + thumbnail + jpeg[2:]


@pytest.mark.parametrize("pixel_format", ["yuvj444p", "yuvj422p", "yuvj420p"])
def test_jpeg_folder(tmp_path, pixel_format):
    video = gradient(width=40, height=30, num_frames=12)  # its blue tells the frames apart
    small = jpeg_of(gradient(width=16, height=8, num_frames=1)[0])
    for index, frame in enumerate(video):
        data = jpeg_of(frame, pixel_format)
        (tmp_path / f"{index}.JPG").write_bytes(with_thumbnail(data, small) if index % 2 else data)
    (tmp_path / "notes.txt").write_text("not a frame")
    with open_video(tmp_path, fps=24, frames=(1, 11)) as reader:
        assert reader.info == VideoInfo(40, 30, Fraction(24), 10)
        difference = torch.stack(list(reader)).int() - video[1:11].int()  # 2.JPG comes before 10.JPG
    assert difference.abs().max() <= 8
    assert difference.float().mean(dim=(0, 2, 3)).abs().max() < 1


def test_grey_and_progressive_jpegs(tmp_path):
    image = pytest.importorskip("PIL.Image")
    levels = np.arange(0, 256, 5, dtype=np.uint8).repeat(8)[None].repeat(16, 0)  # flat blocks: coded well
    image.fromarray(levels).save(tmp_path / "0.jpeg", quality=100)
    image.fromarray(levels).convert("RGB").save(tmp_path / "1.jpeg", quality=100, progressive=True)
    assert np.abs(read(tmp_path).numpy().astype(int) - levels).max() <= 1


def test_pictures_of_two_kinds_are_refused(tmp_path):
    write_video(tmp_path / "out", gradient(num_frames=2), INFO)
    (tmp_path / "out" / "000002.jpg").write_bytes(jpeg_of(gradient()[2]))
    unreadable(tmp_path / "out", r"holds \.jpg and \.png files: keep one kind")


# in: what cannot be read


def test_files_that_are_no_video(tmp_path):
    (tmp_path / "text.mp4").write_text("no video at all\n" * 50)
    (tmp_path / "empty.mp4").write_bytes(b"")
    (tmp_path / "empty").mkdir()
    with av.open(str(tmp_path / "sound.wav"), "w") as container:
        stream = container.add_stream("pcm_s16le", rate=8000)
        sound = av.AudioFrame.from_ndarray(np.zeros((1, 800), np.int16), layout="mono")
        sound.sample_rate = 8000
        container.mux(stream.encode(sound))
    unreadable(tmp_path / "text.mp4", "no video")
    unreadable(tmp_path / "empty.mp4", "no video")
    unreadable(tmp_path / "sound.wav", "no video stream")
    unreadable(tmp_path / "nothing.mp4", "does not exist")
    unreadable("http://localhost/video.mp4", "does not exist")
    unreadable(tmp_path / "empty", "no .png or .jpg files")
    unreadable(io.BytesIO(b"xyz"), "the input is no video")
    unreadable([], "no frames")


def test_header_without_frames(tmp_path):
    (tmp_path / "header.y4m").write_bytes(b"YUV4MPEG2 W4 H4 F25:1 C444\n")
    unreadable(tmp_path / "header.y4m", "no video frames|no video")


@pytest.mark.parametrize(
    ("name", "codec", "options"),
    [
        ("late.mp4", "libx264", {}),  # its index comes last and is gone
        ("early.mp4", "libx264", {"movflags": "faststart"}),
        ("in.mkv", "libx264", {}),
        ("in.webm", "libvpx-vp9", {}),
        ("in.avi", "mpeg4", {}),
        ("in.y4m", "wrapped_avframe", {}),
    ],
)
def test_cut_files(tmp_path, name, codec, options):
    path = tmp_path / name
    noise = lambda i, p, h, w: np.random.default_rng(i).integers(16, 235, (h, w))  # noqa: E731
    plain = make_video(tmp_path / f"plain{path.suffix}", codec=codec, pixel_format="yuv420p", planes=noise)
    with av.open(str(plain)) as source, av.open(str(path), "w", options=options) as target:
        template = source.streams.video[0]
        if hasattr(target, "add_stream_from_template"):
            stream = target.add_stream_from_template(template)
        else:  # PyAV 13
            stream = target.add_stream(template=template)
        for packet in source.demux(video=0):
            if packet.dts is not None or packet.pts is not None:
                packet.stream = stream
                target.mux(packet)
    assert len(read(path)) == 10
    data = path.read_bytes()
    for share in (0.4, 0.7, 0.9):
        path.write_bytes(data[: int(len(data) * share)])
        unreadable(path, "cut")


def test_a_damaged_frame(tmp_path):
    path = make_video(tmp_path / "in.webm", codec="libvpx-vp9", pixel_format="yuv420p")
    with av.open(str(path)) as container:
        start = [packet.pos for packet in container.demux(video=0)][5]
    data = bytearray(path.read_bytes())
    data[start + 4 : start + 20] = bytes(16)  # behind the block's own header
    path.write_bytes(data)
    unreadable(path, "cut or damaged")


def test_bad_pictures(tmp_path):
    write_video(tmp_path / "out", gradient(num_frames=3), INFO)
    last = tmp_path / "out" / "000002.png"
    whole = last.read_bytes()
    last.write_bytes(whole[: len(whole) // 2])
    unreadable(tmp_path / "out", "cannot be decoded")
    last.write_bytes(b"GIF89a")
    unreadable(tmp_path / "out", "is not a PNG picture")
    last.write_bytes(whole[:16] + (99).to_bytes(4, "big") + whole[20:])
    unreadable(tmp_path / "out", "is not 64x48")


def test_bad_jpegs(tmp_path):
    for index, frame in enumerate(gradient(num_frames=3)):
        (tmp_path / f"{index}.jpg").write_bytes(jpeg_of(frame))
    last = tmp_path / "2.jpg"
    whole = last.read_bytes()
    small = jpeg_of(gradient(width=16, height=8)[0])
    short = whole[: len(whole) * 3 // 4]
    for data in (short, short + whole[-2:], whole[:-2], with_thumbnail(whole, small)[:-2]):
        last.write_bytes(data)
        unreadable(tmp_path, r"2\.jpg cannot be decoded as a JPEG picture")
    for data in (b"GIF89a", b"", whole[:40]):
        last.write_bytes(data)
        unreadable(tmp_path, r"2\.jpg is not a JPEG picture")
    last.write_bytes(small)
    unreadable(tmp_path, "is not 64x48")


def test_too_wide(tmp_path):
    assert MAX_SIDE == 16384
    (tmp_path / "wide.y4m").write_bytes(b"YUV4MPEG2 W16385 H1 F25:1 Cmono\nFRAME\n" + bytes(16385))
    unreadable(tmp_path / "wide.y4m", "16385x1 pixels; sides of 1 to 16384")
    (tmp_path / "wide.y4m").write_bytes(b"YUV4MPEG2 W16384 H1 F25:1 Cmono\nFRAME\n" + bytes(16384))
    assert read(tmp_path / "wide.y4m").shape == (1, 3, 1, 16384)
    unreadable(torch.zeros(1, 3, 1, MAX_SIDE + 1, dtype=torch.uint8), "sides of 1 to")


def test_wrong_arguments(tmp_path):
    video = gradient()
    write_video(tmp_path / "in.mp4", video, INFO)
    for frames in ((-1, 3), (3, 3), (5, 2), (10, None)):
        with pytest.raises(ValueError, match="frames="):
            open_video(tmp_path / "in.mp4", frames=frames)
    with pytest.raises(ValueError, match="ends before"):
        list(open_video(iter(video), frames=(10, None)))
    with pytest.raises(ValueError, match="size="):
        open_video(video, size=(0, 5))
    with pytest.raises(ValueError, match="states its own rate"):
        open_video(tmp_path / "in.mp4", fps=25)
    with pytest.raises(ValueError, match="uint8"):
        open_video(video.float())
    with pytest.raises(ValueError, match="T, 3, H, W"):
        open_video(video[0])
    with pytest.raises(ValueError, match="change size"):
        list(open_video([video[0], video[1, :, :5]]))


# out


@pytest.mark.parametrize("suffix", ["mp4", "mkv"])
@pytest.mark.parametrize(("size", "codes"), [((64, 48), (6, 6, 6)), ((16, 720), (1, 1, 1))])
def test_h264_is_good_and_tagged(tmp_path, suffix, size, codes):
    video = gradient(*size, num_frames=4)
    path = tmp_path / f"out.{suffix}"
    write_video(path, video, VideoInfo(*size, Fraction(25)))
    assert psnr(read(path), video) > 40
    with av.open(str(path)) as container:
        frame = next(container.decode(video=0))
        context = container.streams.video[0].codec_context
        assert (context.color_primaries, context.color_trc, context.colorspace, context.color_range) == (
            *codes,
            1,
        )
        assert (frame.colorspace, frame.color_range, frame.format.name) == (codes[2], 1, "yuv420p")


def test_y4m_is_exact_for_any_colour(tmp_path):
    noise = torch.from_numpy(np.random.default_rng(3).integers(0, 256, (3, 3, 100, 100), np.uint8))
    write_video(tmp_path / "out.y4m", noise, VideoInfo(100, 100, Fraction(24000, 1001)))
    assert torch.equal(read(tmp_path / "out.y4m"), noise)
    with av.open(str(tmp_path / "out.y4m")) as container:
        frames = list(container.decode(video=0))
        assert (frames[0].format.name, frames[0].color_range, len(frames)) == ("yuv444p10le", 1, 3)
        assert container.streams.video[0].average_rate == Fraction(24000, 1001)


@pytest.mark.parametrize("name", ["out.mp4", "out.mkv", "out.y4m", "out"])
@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_an_interrupted_writer_leaves_nothing(tmp_path, name, error):
    def frames():
        yield from gradient()
        assert not (tmp_path / name).exists()
        raise error

    with pytest.raises(error):
        write_video(tmp_path / name, frames(), INFO)
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("name", ["out.mp4", "out.mkv", "out.y4m", "out"])
def test_bad_frames_and_no_frames_leave_nothing(tmp_path, name):
    with pytest.raises(ValueError, match="uint8"):
        write_video(tmp_path / name, [gradient()[0], gradient()[1, :, 1:]], INFO)
    with pytest.raises(ValueError, match="no frames were written"):
        write_video(tmp_path / name, [], INFO)
    assert os.listdir(tmp_path) == []


def test_a_failed_write_keeps_the_old_file(tmp_path):
    target = tmp_path / "out.mp4"
    target.write_text("old")
    with pytest.raises(ValueError, match="uint8"):
        write_video(target, [gradient()[0], gradient()[0].float()], INFO)
    assert target.read_text() == "old"
    write_video(target, gradient(), INFO)
    assert len(read(target)) == 10


def test_wrong_targets(tmp_path):
    with pytest.raises(FileNotFoundError, match="create it first"):
        VideoWriter(tmp_path / "missing" / "out.mp4", INFO)
    with pytest.raises(ValueError, match=r"ends in none of \.mp4"):
        VideoWriter(tmp_path / "out.gif", INFO)
    with pytest.raises(ValueError, match="is not one of mp4"):
        VideoWriter(tmp_path / "out", INFO, format="gif")
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match="is a file"):
        VideoWriter(tmp_path / "file", INFO)
    with pytest.raises(ValueError, match="go to a folder"):
        VideoWriter(io.BytesIO(), INFO, format="png")
    with VideoWriter(tmp_path / "out.y4m", INFO) as writer:
        writer.write(gradient()[0])
    with pytest.raises(ValueError, match="closed"):
        writer.write(gradient()[0])


def test_folders_that_exist(tmp_path):
    target = tmp_path / "out"
    target.mkdir()
    (target / "notes.txt").write_text("stays")
    write_video(target, gradient(num_frames=2), INFO)
    assert sorted(os.listdir(target)) == ["000000.png", "000001.png", "notes.txt"]
    with pytest.raises(ValueError, match=r"holds \.png files already"):
        write_video(target, gradient(num_frames=2), INFO)
    assert os.listdir(tmp_path) == ["out"]


@pytest.mark.parametrize(
    ("orientation", "size"), [(1, (24, 16)), (6, (16, 24)), (3, (24, 16)), (8, (16, 24))]
)
def test_a_photograph_with_exif_is_turned_as_it_says(
    tmp_path: Path, orientation: int, size: tuple[int, int]
) -> None:
    picture = np.zeros((16, 24, 3), np.uint8)
    picture[:8, :8] = 255  # top left
    encoder = av.CodecContext.create("mjpeg", "w")
    encoder.width, encoder.height, encoder.pix_fmt, encoder.time_base = 24, 16, "yuvj444p", Fraction(1, 25)
    frame = av.VideoFrame.from_ndarray(picture, format="rgb24").reformat(format="yuvj444p")
    jpeg = b"".join(bytes(p) for p in [*encoder.encode(frame), *encoder.encode(None)])
    entry = struct.pack("<HHII", 0x112, 3, 1, orientation)  # EXIF 2.3: the one tag Orientation
    exif = b"Exif\0\0II*\0" + struct.pack("<IH", 8, 1) + entry + bytes(4)
    segment = b"\xff\xe1" + struct.pack(">H", len(exif) + 2) + exif
    (tmp_path / "a.jpg").write_bytes(jpeg[:2] + segment + jpeg[2:])
    with open_video(tmp_path / "a.jpg") as video:
        shown = next(iter(video))
    assert (shown.shape[2], shown.shape[1]) == size
    bright = (shown[0] > 128).nonzero().float().mean(0) / torch.tensor(shown.shape[1:]) > 0.5
    assert (
        bright.tolist()
        == {1: [False, False], 6: [False, True], 3: [True, True], 8: [True, False]}[orientation]
    )

"""Pictures in every form that people have; refusals in one line that names the file."""

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image, ImageCms

from diffedit_jax import images
from diffedit_jax.errors import UserError


@pytest.fixture
def colours():
    """uint8 [4, 6, 3], all different."""
    return np.random.default_rng(0).integers(0, 256, (4, 6, 3), dtype=np.uint8)


def saved(path, image, **options):
    image.save(path, **options)
    return path


def one_line_refusal(call, *words):
    with pytest.raises(UserError) as error:
        call()
    text = str(error.value)
    assert "\n" not in text
    for word in words:
        assert word in text, text


# --- forms that are read ---


@pytest.mark.parametrize("ending", ["png", "bmp", "tiff", "ppm", "webp"])
def test_lossless_files_come_back_bit_for_bit(tmp_path, colours, ending):
    options = {"lossless": True} if ending == "webp" else {}
    path = saved(tmp_path / f"a.{ending}", Image.fromarray(colours), **options)
    picture = images.read(path)
    np.testing.assert_array_equal(picture.pixels, colours)
    assert picture.notices == () and picture.path == path
    assert picture.pixels.dtype == np.uint8


def test_a_path_may_be_text_and_the_ending_may_lie(tmp_path, colours):
    path = tmp_path / "really_a_png.jpg"
    Image.fromarray(colours).save(path, "PNG")
    np.testing.assert_array_equal(images.read(str(path)).pixels, colours)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_rotation_is_applied(tmp_path, colours, orientation):
    turned = {
        1: colours,
        2: colours[:, ::-1],
        3: colours[::-1, ::-1],
        4: colours[::-1],
        5: colours.transpose(1, 0, 2),
        6: np.rot90(colours, -1),
        7: colours[::-1, ::-1].transpose(1, 0, 2),
        8: np.rot90(colours),
    }[orientation]
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = saved(tmp_path / "a.png", Image.fromarray(colours), exif=exif)
    np.testing.assert_array_equal(images.read(path).pixels, turned)


def test_palette_grey_and_one_bit(tmp_path):
    grey = np.array([[0, 85], [170, 255]], np.uint8)
    three = np.repeat(grey[..., None], 3, -1)
    image = Image.fromarray(grey)
    for name, made in {"l": image, "p": image.convert("P"), "rgb": image.convert("RGB")}.items():
        np.testing.assert_array_equal(
            images.read(saved(tmp_path / f"{name}.png", made)).pixels, three
        )
    bits = images.read(saved(tmp_path / "1.png", Image.fromarray(grey > 100)))
    assert set(np.unique(bits.pixels)) == {0, 255}


def test_cmyk_is_converted(tmp_path):
    red = Image.new("CMYK", (8, 8), (0, 255, 255, 0))
    path = saved(tmp_path / "a.tiff", red)
    np.testing.assert_array_equal(images.read(path).pixels[0, 0], [255, 0, 0])


@pytest.mark.parametrize("mode", ["RGBA", "LA", "palette"])
def test_alpha_is_laid_over_white_with_a_notice(tmp_path, mode):
    if mode == "palette":
        image = Image.new("P", (2, 1))
        image.putpalette([0, 0, 0, 100, 100, 100])
        image.putdata([0, 1])
        path = saved(tmp_path / "a.png", image, transparency=0)
        expected = [[255] * 3, [100] * 3]
    else:
        image = Image.new("RGBA", (2, 1), (0, 0, 0, 0))
        image.putpixel((1, 0), (100, 100, 100, 255))
        path = saved(tmp_path / "a.png", image.convert(mode))
        expected = [[255] * 3, [100] * 3]
    picture = images.read(path)
    np.testing.assert_array_equal(picture.pixels[0], expected)
    assert len(picture.notices) == 1 and "white" in picture.notices[0]


def test_half_transparent_is_the_mean_with_white_and_opaque_needs_no_notice():
    half = Image.new("RGBA", (1, 1), (0, 0, 0, 51))  # alpha 0.2
    assert images.read(half).pixels[0, 0, 0] == 204
    assert images.read(Image.new("RGBA", (1, 1), (1, 2, 3, 255))).notices == ()


def test_sixteen_bits_are_scaled_not_clipped(tmp_path):
    deep = np.array([[0, 257 * 100, 65535]], np.uint16)
    path = saved(tmp_path / "deep.png", Image.fromarray(deep))
    np.testing.assert_array_equal(images.read(path).pixels[0, :, 0], [0, 100, 255])
    np.testing.assert_array_equal(images.read(deep).pixels[0, :, 0], [0, 100, 255])


@pytest.mark.parametrize(
    "values, expected",
    [
        (np.array([[0, 0.2, 1]], np.float32), [0, 51, 255]),
        (np.array([[0, 51, 255]], np.float32), [0, 51, 255]),
        (np.array([[-1, 0, 1]], np.float32), [0, 128, 255]),
        (np.array([[0, 257 * 51, 65535]], np.int32), [0, 51, 255]),
        (np.array([[0, 1 << 29, 1 << 30]], np.int32), [0, 128, 255]),
    ],
)
def test_float_and_32_bit_files_are_scaled_with_a_notice(tmp_path, values, expected):
    path = saved(tmp_path / "a.tiff", Image.fromarray(values))
    picture = images.read(path)
    np.testing.assert_array_equal(picture.pixels[0, :, 0], expected)
    assert "black..white" in picture.notices[0]


@pytest.mark.parametrize("ending", ["gif", "webp", "png", "tiff"])
def test_first_frame_of_an_animation_with_a_notice(tmp_path, ending):
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("white", "black")]
    options = {"lossless": True} if ending == "webp" else {}
    path = saved(
        tmp_path / f"a.{ending}", frames[0], save_all=True, append_images=frames[1:], **options
    )
    picture = images.read(path)
    assert picture.pixels.min() == 255
    assert "first" in picture.notices[0]


def test_a_colour_profile_is_converted_and_srgb_left_alone(tmp_path, colours):
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    path = saved(tmp_path / "s.png", Image.fromarray(colours), icc_profile=srgb)
    np.testing.assert_array_equal(images.read(path).pixels, colours)
    swapped = srgb.replace(b"rXYZ", b"----").replace(b"gXYZ", b"rXYZ").replace(b"----", b"gXYZ")
    swapped = swapped.replace(b"\0s\0R\0G\0B", b"\0g\0R\0B\0B")
    path = saved(tmp_path / "x.png", Image.fromarray(colours), icc_profile=swapped)
    exchanged = images.read(path).pixels.astype(int) - colours[..., [1, 0, 2]]
    assert abs(exchanged).max() <= 2  # a profile whose red is green
    path = saved(tmp_path / "b.png", Image.fromarray(colours), icc_profile=b"no profile at all")
    picture = images.read(path)
    np.testing.assert_array_equal(picture.pixels, colours)
    assert "profile" in picture.notices[0]


def test_arrays_of_every_number_type(colours):
    for array in (colours, colours / 255, (colours / 255).astype(np.float32)):
        np.testing.assert_array_equal(images.read(array).pixels, colours)
    np.testing.assert_array_equal(images.read(colours.astype(np.uint16) * 257).pixels, colours)
    assert images.read(np.eye(3, dtype=bool)).pixels[0, 0].tolist() == [255] * 3
    assert images.read(colours[..., :1]).pixels.shape == (4, 6, 3)


def test_batches_and_singles_are_told_apart(tmp_path, colours):
    batch = np.stack([colours, colours[::-1]])
    pictures, is_batch = images.read_all(batch)
    assert is_batch and len(pictures) == 2
    np.testing.assert_array_equal(pictures[1].pixels, colours[::-1])
    assert images.read_all([colours])[1] and not images.read_all(colours)[1]
    one_line_refusal(lambda: images.read_all([]), "no picture")


# --- refusals ---


@pytest.mark.parametrize(
    "content, words",
    [
        (b"", "empty"),
        (b"hello", "not a picture"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\n", "PostScript"),
        (b"\xc5\xd0\xd3\xc6" + bytes(60), "PostScript"),
        (b"%PDF-1.7\n", "PDF"),
        (b"<?xml version='1.0'?><svg xmlns='x'/>", "SVG"),
        (b"<svg/>", "SVG"),
        (b"\n<!DOCTYPE html><html></html>", "web page"),
        (b"version https://git-lfs.github.com/spec/v1\n", "LFS"),
    ],
)
def test_what_is_no_picture_is_named(tmp_path, content, words):
    path = tmp_path / "cat.png"
    path.write_bytes(content)
    one_line_refusal(lambda: images.read(path), str(path), words)


def test_postscript_never_reaches_a_program(tmp_path, monkeypatch):
    import subprocess

    started = []
    monkeypatch.setattr(subprocess, "Popen", lambda *a, **k: started.append(a))
    monkeypatch.setattr(subprocess, "check_call", lambda *a, **k: started.append(a))
    from PIL import Image as module

    module.init()  # every plugin is registered, as another library may have done
    buffer = io.BytesIO()
    Image.new("RGB", (8, 8)).save(buffer, "EPS")
    for name in ("a.eps", "a.png", "a.jpg"):
        (tmp_path / name).write_bytes(buffer.getvalue())
        one_line_refusal(lambda name=name: images.read(tmp_path / name), name)
    assert not started


def test_missing_folder_address_and_device(tmp_path):
    one_line_refusal(lambda: images.read(tmp_path / "no.png"), "no.png", "not exist")
    one_line_refusal(lambda: images.read(tmp_path), "folder")
    one_line_refusal(lambda: images.read("https://example.com/a.png"), "download")
    one_line_refusal(lambda: images.read("/dev/null"), "/dev/null")
    one_line_refusal(lambda: images.read("a\0b.png"), "b.png")
    one_line_refusal(lambda: images.read("x" * 5000), "cannot be opened")


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "GIF", "TIFF", "BMP", "WEBP", "PPM"])
def test_truncated_files_are_refused(tmp_path, kind):
    noise = np.random.default_rng(1).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(noise).save(buffer, kind)
    path = tmp_path / "cut.img"
    for part in (0.02, 0.3, 0.6):
        path.write_bytes(buffer.getvalue()[: int(len(buffer.getvalue()) * part)])
        one_line_refusal(lambda: images.read(path), "cut.img")


def png_header(width, height):
    def chunk(kind, body):
        return (
            struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        )

    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + head + chunk(b"IDAT", zlib.compress(bytes(1000)))


@pytest.mark.parametrize("side", [9_600, 20_000, 2**31 - 1])
def test_decompression_bombs_are_refused_before_decoding(tmp_path, side, recwarn):
    path = tmp_path / "bomb.png"
    path.write_bytes(png_header(side, side))
    one_line_refusal(lambda: images.read(path), "bomb.png", "pixels")
    assert not recwarn.list


def test_random_damage_never_escapes_as_another_error(tmp_path, colours):
    rng = np.random.default_rng(2)
    path = tmp_path / "fuzz"
    for kind in ("PNG", "JPEG", "GIF", "TIFF", "WEBP", "BMP"):
        buffer = io.BytesIO()
        Image.fromarray(colours).save(buffer, kind)
        for _ in range(30):
            data = bytearray(buffer.getvalue())
            for at in rng.integers(0, len(data), 4):
                data[at] = rng.integers(0, 256)
            path.write_bytes(data)
            try:
                assert images.read(path).pixels.dtype == np.uint8
            except UserError as error:
                assert "\n" not in str(error)


@pytest.mark.parametrize(
    "array, word",
    [
        (np.zeros((2, 2, 5)), "shape"),
        (np.zeros((0, 4, 3)), "shape"),
        (np.full((2, 2, 3), 7.0), "0..1"),
        (np.full((2, 2, 3), np.nan), "NaN"),
        (np.zeros((2, 2, 3), np.int64), "int64"),
        (np.array(["a"]), "shape"),
    ],
)
def test_arrays_that_are_no_picture(array, word):
    one_line_refusal(lambda: images.read(array), word)


# --- masks ---


def test_masks_in_every_form(tmp_path):
    truth = np.array([[0, 1], [1, 0]], np.float32)
    byte = (truth * 255).astype(np.uint8)
    path = saved(tmp_path / "m.png", Image.fromarray(byte))
    forms = [path, str(path), Image.fromarray(byte), byte, truth, truth > 0, truth.astype(np.int64),
             byte[..., None], np.repeat(byte[..., None], 3, -1)]  # fmt: skip
    for form in forms:
        mask = images.read_mask(form, (2, 2))
        assert mask.dtype == np.float32
        np.testing.assert_array_equal(mask, truth)


def test_soft_masks_stay_soft_and_transparent_parts_are_kept():
    assert images.read_mask(np.full((1, 1), 51, np.uint8), (1, 1))[0, 0] == np.float32(0.2)
    clear = Image.new("RGBA", (1, 1), (255, 255, 255, 0))
    assert images.read_mask(clear, (1, 1))[0, 0] == 0
    assert images.read_mask(Image.new("LA", (1, 1), (255, 255)), (1, 1))[0, 0] == 1


def test_a_mask_of_another_shape_says_both_sizes(tmp_path):
    path = saved(tmp_path / "m.png", Image.new("L", (5, 4)))
    one_line_refusal(lambda: images.read_mask(path, (7, 9)), "m.png", "5x4", "9x7")
    one_line_refusal(lambda: images.read_mask(np.zeros((2, 2, 2)), (2, 2)), "shape")
    one_line_refusal(lambda: images.read_mask(np.full((2, 2), -1.0), (2, 2)), "0..1")
    one_line_refusal(lambda: images.read_mask(tmp_path / "no.png", (2, 2)), "mask", "not exist")

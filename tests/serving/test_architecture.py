"""The sizes of a model: an export's file has all of them."""

from architecture import Architecture


def test_an_architecture_is_read_as_it_was_written(tmp_path):
    sizes = Architecture(
        layers=2,
        heads=4,
        key_value_heads=2,
        head_size=16,
        intermediate_size=96,
        epsilon=1e-5,
        sliding_window=0,
        vocabulary_size=300,
        rotation_scale=1.25,
        frequencies=[1.0, 0.1],
        long_frequencies=[],
    )
    sizes.write(tmp_path)
    assert Architecture.read(tmp_path) == sizes

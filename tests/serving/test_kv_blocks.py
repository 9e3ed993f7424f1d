import openvino as ov
import pytest
from kv_blocks import BlockPool

from memory import resident_bytes


class Format:
    """Blocks of two tokens with one number each."""

    def __init__(self, name):
        self.name, self.type, self.shape = name, ov.Type.f32, [1, 2, 1]
        self.length, self.size = 2, 8


class Request:
    def __init__(self):
        self.tensors = {}

    def set_tensor(self, name, tensor):
        self.tensors[name] = tensor

    def write(self, table, start, values):
        for position, value in enumerate(values, start):
            for tensor in self.tensors.values():
                tensor.data[table[position // 2], 0, position % 2, 0] = value

    def read(self, table, length, name="key"):
        blocks = self.tensors[name].data[table, 0, :, 0]
        return blocks.reshape(-1)[:length].tolist()


@pytest.fixture
def pool():
    return BlockPool([Format("key"), Format("value")], capacity=8)


@pytest.fixture
def request_(pool):
    request = Request()
    pool.bind(request)
    return request


@pytest.fixture
def add_row(pool, request_):
    def add(values):
        table = []
        pool.prepare(table, 0, len(values))
        request_.write(table, 0, values)
        return table

    return add


@pytest.mark.parametrize(("tokens", "blocks"), [(0, 0), (1, 1), (2, 1), (3, 2)])
def test_a_row_has_the_blocks_that_its_tokens_need(pool, tokens, blocks):
    table = []
    pool.prepare(table, 0, tokens)
    assert len(table) == pool.blocks_for(tokens) == blocks


def test_full_blocks_are_shared_and_the_last_one_is_copied(pool, request_, add_row):
    row = add_row([1, 2, 3])
    shared = pool.share(row, 3)
    assert shared[0] == row[0]
    assert shared[1] != row[1]
    for name in ("key", "value"):
        assert request_.read(shared, 3, name) == [1, 2, 3]


def test_a_row_that_writes_to_a_shared_block_gets_its_own(pool, request_, add_row):
    row = add_row([1, 2, 3, 4])
    other = pool.share(row, 4)
    pool.prepare(other, 1, 4)  # the second token is written again, the first one stays
    request_.write(other, 1, [7, 8, 9])
    assert request_.read(row, 4) == [1, 2, 3, 4]
    assert request_.read(other, 4) == [1, 7, 8, 9]


def test_released_blocks_are_used_again_the_lowest_first(pool):
    tables = [[], [], []]
    for table in tables:
        pool.prepare(table, 0, 4)
    pool.release(tables[1])
    new = []
    pool.prepare(new, 0, 2)
    assert new == [min(tables[1])]


def test_a_shared_block_is_free_only_after_its_last_row(pool, add_row):
    row = add_row([1, 2])
    other = pool.share(row, 2)
    pool.release(row)
    new = []
    pool.prepare(new, 0, 2)
    assert new != other
    pool.release(other)
    last = []
    pool.prepare(last, 0, 2)
    assert last == other


def test_a_full_pool_grows_and_keeps_what_it_contains(pool, request_, add_row):
    row = add_row([1, 2, 3])
    others = [[] for _ in range(8)]
    for table in others:
        pool.prepare(table, 0, 2)
    blocks = [block for table in (row, *others) for block in table]
    assert len(set(blocks)) == len(blocks)
    pool.bind(request_)
    assert request_.tensors["key"].shape[0] > 8
    assert request_.read(row, 3) == [1, 2, 3]


def test_the_tensors_are_set_once_unless_the_pool_has_grown(pool):
    tensors = []
    for tokens in (1, 1, 100):
        pool.prepare([], 0, tokens)
        request = Request()
        pool.bind(request)
        tensors.append(set(request.tensors))
    assert tensors == [{"key", "value"}, set(), {"key", "value"}]


def test_growing_does_not_write_to_blocks_that_are_not_used():
    large = Format("key")
    large.size = 16_384
    pool = BlockPool([large], capacity=20_000)  # more than malloc takes from memory that was in use
    row = []
    pool.prepare(row, 0, 2)
    pool._arrays[0][row[0]] = 7
    old = resident_bytes()
    pool._grow(1)
    assert (pool._arrays[0][row[0]] == 7).all()
    assert resident_bytes() - old < pool._arrays[0].nbytes / 4


def test_memory_of_unused_blocks_is_given_back():
    large = Format("key")
    large.size = 100_000  # no multiple of a page
    pool = BlockPool([large], capacity=400)
    rows = [[] for _ in range(20)]
    for row in rows:
        pool.prepare(row, 0, 40)
    for block in range(400):
        pool._arrays[0][block] = block % 256
    old = resident_bytes()
    for row in rows[1::2]:
        pool.release(row)
    pool.release_memory()
    assert old - resident_bytes() > 0.4 * pool._arrays[0].nbytes
    for row in rows[::2]:
        for block in row:
            assert (pool._arrays[0][block] == block % 256).all()

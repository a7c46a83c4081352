"""Activations reach the disk as they were handed over, in bounded memory, or an error says why."""

import errno
import signal
import threading
import time
from contextlib import closing

import numpy as np
import pytest
import torch
import zarr

from scanner import VolumeError, shards, streaming
from scanner.shards import create
from scanner.streaming import NotFiniteError, Rows, Stream

ROWS, LAYERS, UNITS = 40, 2, 6


@pytest.fixture(autouse=True)
def patience():
    """A stream that waits for ever fails its test, and does not hold up the others."""

    def out_of_it(_signal, _frame):
        raise TimeoutError("the stream waits for ever")

    before = signal.signal(signal.SIGALRM, out_of_it)
    signal.alarm(30)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


def rows(*numbers):
    return Rows(np.array(numbers), np.array(numbers) + 100)


@pytest.fixture
def open_stream(tmp_path):
    """``open_stream(dtype)``: a stream into arrays ``one`` (row x layer x unit) and ``two``."""

    def make(dtype="float32"):
        if not (tmp_path / "v").exists():
            group = zarr.open_group(tmp_path / "v", mode="w", zarr_format=3)
            shape, dims = (ROWS, LAYERS, UNITS), ("stimulus", "layer", "unit")
            create(group, "one", shape=shape, layered=True, dims=dims, dtype=dtype)
            create(group, "two", shape=(ROWS, 3), layered=False, dims=("stimulus", "rank"),
                   dtype="int32")  # fmt: skip
        folder = tmp_path / "v"
        writers = {name: shards.ShardWriter(folder / name) for name in ("one", "two")}
        return Stream(writers, folder / "journal", "toy", lambda n: f"text {n}")

    return make


@pytest.fixture
def arrays(tmp_path):
    return lambda name: zarr.open_array(tmp_path / "v" / name)[:]


def fill(stream, rng, dtype=torch.float32):
    """Hand over all rows, in batches of a random order; gives what was handed over."""
    values = torch.from_numpy(rng.normal(size=(ROWS, LAYERS, UNITS))).to(dtype)
    ids = torch.from_numpy(rng.integers(0, 9, size=(ROWS, 3))).int()
    for number, some in enumerate(np.array_split(rng.permutation(ROWS), 7)):
        for layer in range(LAYERS):
            stream.put("one", layer, Rows(some, some), values[some, layer])
        stream.put("two", None, Rows(some, some), ids[some])
        stream.done(number)
    return values, ids


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("stored", ["float32", "float16"])
def test_what_is_handed_over_in_any_order_is_what_is_read(open_stream, arrays, dtype, stored):
    with closing(open_stream(stored)) as stream:
        values, ids = fill(stream, np.random.default_rng(0), dtype)
        stream.finish()
    np.testing.assert_array_equal(arrays("one"), values.float().numpy().astype(stored))
    np.testing.assert_array_equal(arrays("two"), ids.numpy())


@pytest.mark.parametrize("seconds", [0.0, 1000.0])
def test_the_journal_names_each_batch_once_when_all_is_done(
    open_stream, tmp_path, monkeypatch, seconds
):
    monkeypatch.setattr(streaming, "COMMIT_SECONDS", seconds)
    with closing(open_stream()) as stream:
        fill(stream, np.random.default_rng(0))
        stream.finish()
    assert (tmp_path / "v/journal").read_text() == "".join(f"{n}\n" for n in range(7))


def test_what_the_journal_names_is_on_the_disk_and_what_is_not_complete_is_not_named(
    open_stream, tmp_path, monkeypatch
):
    """A batch is noted after it is written and synced: at each note the files are looked at."""
    monkeypatch.setattr(streaming, "COMMIT_SECONDS", 0.0)
    synced, noted = [], []
    sync, commit = shards.ShardWriter.sync, Stream._commit

    def look(stream, finished):
        noted.append(list(finished))
        commit(stream, finished)

    def note(writer):
        synced.append((tmp_path / "v/journal").exists())
        sync(writer)

    monkeypatch.setattr(Stream, "_commit", look)
    monkeypatch.setattr(shards.ShardWriter, "sync", note)
    with closing(open_stream()) as stream:
        stream.put("one", 0, rows(1, 2), torch.ones(2, UNITS))
        stream.done(5)
        stream.put("one", 1, rows(1, 2), torch.ones(2, UNITS))
    assert (tmp_path / "v/journal").read_text() == "5\n"
    assert noted[0] == [5]
    assert synced[:2] == [False, False]  # both arrays, before the first line was there


def test_batches_are_noted_when_the_time_has_come_and_at_the_end(
    open_stream, tmp_path, monkeypatch
):
    monkeypatch.setattr(streaming, "COMMIT_SECONDS", 1000.0)
    journal = tmp_path / "v/journal"
    with closing(open_stream()) as stream:
        stream.put("one", 0, rows(1), torch.ones(1, UNITS))
        stream.done(3)
        stream.put("one", 0, rows(2), torch.ones(1, UNITS))
        time.sleep(0.2)
        assert not journal.exists()
    assert journal.read_text() == "3\n"


def test_what_was_handed_over_when_the_model_fails_is_written_and_its_whole_batches_noted(
    open_stream, tmp_path
):
    with pytest.raises(ZeroDivisionError), closing(open_stream()) as stream:
        for number in range(3):
            stream.put("one", 0, rows(number), torch.full((1, UNITS), 7.0))
            stream.done(number)
        stream.put("one", 0, rows(9), torch.full((1, UNITS), 7.0))
        raise ZeroDivisionError
    assert (tmp_path / "v/journal").read_text() == "0\n1\n2\n"
    assert not any(thread.name == "volume writer" for thread in threading.enumerate())


def test_at_the_end_two_write_and_no_batch_is_noted_before_both_are_done(
    open_stream, arrays, tmp_path
):
    """The first piece is held by one of them while the other comes to the note of its batch."""
    stream, journal = open_stream(), tmp_path / "v/journal"
    writer = stream._writers["one"]
    write, writers, noted_early = writer.write, set(), []

    def slowly(numbers, values, *, layer):
        writers.add(threading.current_thread().name)
        time.sleep(0.3 if threading.current_thread() is threading.main_thread() else 0.02)
        noted_early.append(journal.exists())
        write(numbers, values, layer=layer)

    writer.write = slowly
    with closing(stream):
        for number in range(ROWS):
            for layer in range(LAYERS):
                stream.put("one", layer, rows(number), torch.full((1, UNITS), number + 1.0))
        stream.put("two", None, rows(*range(ROWS)), torch.ones(ROWS, 3, dtype=torch.int32))
        stream.done(4)
        stream.finish()
    assert writers == {"volume writer", threading.main_thread().name}
    assert noted_early == [False] * ROWS * LAYERS
    assert journal.read_text() == "4\n"
    assert (arrays("one") == np.arange(1, ROWS + 1)[:, None, None]).all()


def test_a_failure_of_the_one_that_helps_is_told_and_its_batch_is_not_noted(open_stream, tmp_path):
    stream = open_stream()
    writer = stream._writers["one"]
    write, error = writer.write, OSError(errno.ENOSPC, "No space left on device")

    def slowly(numbers, values, *, layer):
        if threading.current_thread() is threading.main_thread():
            raise error
        time.sleep(0.05)
        write(numbers, values, layer=layer)

    writer.write = slowly
    with pytest.raises(OSError, match="No space left") as raised, closing(stream):
        for number in range(3):
            stream.put("one", 0, rows(number), torch.ones(1, UNITS))
        stream.done(0)
        stream.finish()
    assert raised.value is error
    assert not (tmp_path / "v/journal").exists()


@pytest.mark.parametrize("slow", ["writer", "helper"])
def test_of_two_failures_the_one_that_was_handed_over_first_is_told(open_stream, slow):
    """Both threads fail, each on a layer of its own; which is faster must not matter."""
    stream = open_stream()
    writer = stream._writers["one"]
    started = threading.Event()

    def write(_numbers, _values, *, layer):
        helps = threading.current_thread() is threading.main_thread()
        if not helps:
            started.wait(5)  # until the other has a piece, too
        else:
            started.set()
        time.sleep(0.2 if helps == (slow == "helper") else 0.0)
        raise OSError(f"layer {layer}")

    writer.write = write
    with pytest.raises(OSError, match="layer 0"), closing(stream):
        for layer in range(LAYERS):
            stream.put("one", layer, rows(1), torch.ones(1, UNITS))
        time.sleep(0.2)  # the writer has taken the first
        stream.finish()


def failing(stream, error, when=threading.Event):
    """Let the stream's writers fail, once they may."""
    may = when()

    def write(*_args, **_kwargs):
        may.wait(10)
        raise error

    for writer in stream._writers.values():
        writer.write = write
    return may


def test_a_writer_that_fails_while_the_model_waits_for_room_frees_it_with_the_error(
    open_stream, monkeypatch
):
    monkeypatch.setattr(streaming, "IN_FLIGHT", 2 * UNITS * 4)
    error = OSError(errno.ENOSPC, "No space left on device")
    stream = open_stream()
    may = failing(stream, error)
    threading.Timer(0.2, may.set).start()
    began = time.monotonic()
    with pytest.raises(OSError, match="No space left") as raised, closing(stream):
        for number in range(10):
            stream.put("one", 0, rows(number), torch.ones(1, UNITS))
    assert raised.value is error
    assert time.monotonic() - began < 5


@pytest.mark.parametrize("call", ["put", "done", "finish"])
def test_whatever_is_called_after_a_failure_says_what_failed_first(open_stream, call):
    error = OSError(errno.EACCES, "Permission denied")
    stream = open_stream()
    failing(stream, error).set()
    stream.put("one", 0, rows(0), torch.ones(1, UNITS))
    stream._thread.join(5)
    calls = {
        "put": lambda: stream.put("one", 0, rows(1), torch.ones(1, UNITS)),
        "done": lambda: stream.done(0),
        "finish": stream.finish,
    }
    with pytest.raises(OSError, match="Permission denied") as raised, closing(stream):
        calls[call]()
    assert raised.value is error
    assert raised.value.__context__ is None


def test_a_folder_that_cannot_be_made_is_the_error_that_is_told(open_stream, tmp_path, monkeypatch):
    """Closing afterwards must not look for the file that was never made."""

    def refuse(*_args, **_kwargs):
        raise OSError(errno.ENOSPC, "No space left on device")

    stream = open_stream()
    monkeypatch.setattr("pathlib.Path.mkdir", refuse)
    with pytest.raises(OSError, match="No space left"), closing(stream):
        stream.put("one", 0, rows(0), torch.ones(1, UNITS))
        stream.finish()


def test_a_journal_that_cannot_be_written_fails_the_recording(open_stream, tmp_path):
    stream = open_stream()
    (tmp_path / "v/journal").mkdir()
    with pytest.raises(IsADirectoryError), closing(stream):
        stream.put("one", 0, rows(0), torch.ones(1, UNITS))
        stream.done(0)
        stream.finish()


def test_closing_without_finishing_leaves_no_valid_array_and_may_be_done_twice(
    open_stream, tmp_path
):
    stream = open_stream()
    stream.put("two", None, rows(*range(ROWS)), torch.ones((ROWS, 3), dtype=torch.int32))
    stream.close()
    stream.close()
    assert any("two" in damage for damage in shards.damaged(tmp_path / "v/two"))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_what_waits_for_the_disk_is_bounded_whatever_the_dtype(open_stream, monkeypatch, dtype):
    """bfloat16 is twice as large in the CPU's memory; the sum must come back to zero."""
    bound = 10 * UNITS * 4
    monkeypatch.setattr(streaming, "IN_FLIGHT", bound)
    waiting, most = 0, 0
    lock = threading.Lock()
    off_device = streaming._off_device

    def count(values, to):
        nonlocal waiting, most
        host, ready = off_device(values, to)
        with lock:
            waiting += host.numel() * host.element_size()
            most = max(most, waiting)
        return host, ready

    with closing(open_stream()) as stream:
        writer = stream._writers["one"]
        write = writer.write

        def slowly(numbers, values, *, layer):
            nonlocal waiting
            time.sleep(0.002)
            write(numbers, values, layer=layer)
            with lock:
                waiting -= len(numbers) * UNITS * (2 if dtype == torch.float16 else 4)

        writer.write = slowly
        monkeypatch.setattr(streaming, "_off_device", count)
        for number in range(ROWS):
            for layer in range(LAYERS):
                stream.put("one", layer, rows(number), torch.ones(1, UNITS, dtype=dtype))
        stream._stop()
        assert stream._bytes == 0
    assert bound / 2 <= most <= bound


def test_one_piece_larger_than_all_that_may_wait_goes_through_alone(
    open_stream, arrays, monkeypatch
):
    monkeypatch.setattr(streaming, "IN_FLIGHT", 8)
    with closing(open_stream()) as stream:
        values, _ = fill(stream, np.random.default_rng(0))
        stream.finish()
    np.testing.assert_array_equal(arrays("one"), values.float().numpy())


def test_a_copy_that_finds_no_memory_is_not_waited_for(open_stream, monkeypatch):
    """The recording goes on with half the batch, in the same stream."""
    monkeypatch.setattr(streaming, "IN_FLIGHT", 4 * UNITS * 4)
    off_device = streaming._off_device

    def refuse(_values, _dtype):
        raise torch.OutOfMemoryError("no")

    with closing(open_stream()) as stream:
        monkeypatch.setattr(streaming, "_off_device", refuse)
        for _ in range(3):
            with pytest.raises(torch.OutOfMemoryError):
                stream.put("one", 0, rows(0, 1, 2), torch.ones(3, UNITS))
        monkeypatch.setattr(streaming, "_off_device", off_device)
        putting = threading.Thread(
            target=lambda: stream.put("one", 0, rows(0, 1), torch.ones(2, UNITS)), daemon=True
        )
        putting.start()
        putting.join(5)
        assert not putting.is_alive()


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("stored", ["float32", "float16"])
def test_what_is_not_finite_is_named_by_stimulus_site_and_layer(open_stream, bad, stored):
    values = torch.ones(3, UNITS)
    values[1, 4] = bad
    values[2, 0] = -bad
    with (
        pytest.raises(NotFiniteError, match=r"^toy: one\.1 of text 107 is not finite. A") as raised,
        closing(open_stream(stored)) as stream,
    ):
        stream.put("one", 1, rows(3, 7, 5), values)
        stream.finish()
    assert raised.value.stimuli == [107, 105]


def test_a_cast_that_overflows_is_an_error_and_never_infinity_on_the_disk(open_stream, tmp_path):
    values = torch.ones(2, UNITS)
    values[1, 2] = -70000.0
    with pytest.raises(
        VolumeError,
        match=r"^toy: one\.0 of text 104 reaches 7e\+04, more than float16 can hold. Store it as f",
    ), closing(open_stream("float16")) as stream:  # fmt: skip
        stream.put("one", 0, rows(0, 4), values)
        stream.done(0)
        stream.finish()
    assert list((tmp_path / "v/one").rglob("0")) == []
    assert not (tmp_path / "v/journal").exists()


@pytest.mark.parametrize("largest", [65504.0, 65519.0])
def test_the_largest_number_of_a_dtype_is_no_overflow(open_stream, arrays, largest):
    with closing(open_stream("float16")) as stream:
        for layer in range(LAYERS):
            stream.put("one", layer, rows(*range(ROWS)), torch.full((ROWS, UNITS), largest))
        stream.put("two", None, rows(*range(ROWS)), torch.ones((ROWS, 3), dtype=torch.int32))
        stream.finish()
    assert (arrays("one") == 65504.0).all()


def test_numbers_whose_sum_overflows_are_finite_themselves(open_stream, arrays):
    huge = 3e38  # finite in float32, and its sum is not
    with closing(open_stream()) as stream:
        for layer in range(LAYERS):
            stream.put("one", layer, rows(*range(ROWS)), torch.full((ROWS, UNITS), huge))
        stream.put("two", None, rows(*range(ROWS)), torch.ones((ROWS, 3), dtype=torch.int32))
        stream.finish()
    assert (arrays("one") == np.float32(huge)).all()


def test_the_writer_does_not_hold_back_the_model(open_stream):
    """Handing over returns before the disk is done: what the second thread is for."""
    stream = open_stream()
    gate = threading.Event()
    writer = stream._writers["one"]
    write = writer.write
    writer.write = lambda *a, **k: (gate.wait(10), write(*a, **k))
    for number in range(5):
        stream.put("one", 0, rows(number), torch.ones(1, UNITS))
        stream.done(number)
    assert not gate.is_set()
    gate.set()
    stream.close()


def test_an_interrupt_while_the_model_waits_for_room_ends_it(open_stream, monkeypatch, tmp_path):
    # Tests that run in the background of a shell are started deaf to it.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    monkeypatch.setattr(streaming, "IN_FLIGHT", 2 * UNITS * 4)
    stream = open_stream()
    gate = threading.Event()
    writer = stream._writers["one"]
    write = writer.write
    writer.write = lambda *a, **k: (gate.wait(10), write(*a, **k))
    main = threading.main_thread().ident

    def interrupt():
        time.sleep(0.2)
        signal.pthread_kill(main, signal.SIGINT)
        time.sleep(0.2)
        gate.set()

    other = threading.Thread(target=interrupt)
    other.start()
    with pytest.raises(KeyboardInterrupt), closing(stream):
        for number in range(10):
            stream.put("one", 0, rows(number), torch.ones(1, UNITS))
            stream.done(number)
    other.join()
    signal.signal(signal.SIGINT, before)
    # What was handed over before is there.
    assert (tmp_path / "v/journal").read_text().startswith("0\n")

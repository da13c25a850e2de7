"""python readers.py SOURCE MOUNT BUNDLE: reads the shards of a plain directory and of the mount that
shows the same one, side by side, and prints GB/s (sequential) and microseconds (random)."""

import os
import random
import sys
import threading
import time

BLOCK = 1 << 20


def drop_caches():
    os.sync()
    try:
        with open("/proc/sys/vm/drop_caches", "w") as file:
            file.write("3\n")
        return True
    except OSError:
        return False


def shards(folder):
    return sorted(os.path.join(folder, n) for n in os.listdir(folder) if n.endswith(".safetensors"))


def read_all(paths):
    buffer = bytearray(BLOCK)
    total = 0
    for path in paths:
        with open(path, "rb", buffering=0) as file:
            while n := file.readinto(buffer):
                total += n
    return total


def sequential(paths, threads):
    start = time.perf_counter()
    total = sum(os.path.getsize(p) for p in paths)
    workers = [threading.Thread(target=read_all, args=(paths[i::threads],)) for i in range(threads)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    return 1e-9 * total / (time.perf_counter() - start)


def scattered(paths, count=2000):
    generator = random.Random(1)
    files = [os.open(p, os.O_RDONLY) for p in paths]
    for fd in files:
        os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_RANDOM)
    size = os.fstat(files[0]).st_size
    start = time.perf_counter()
    for _ in range(count):
        os.pread(generator.choice(files), 4096, generator.randrange(size // 4096) * 4096)
    seconds = time.perf_counter() - start
    for fd in files:
        os.close(fd)
    return 1e6 * seconds / count


def main():
    source, mount, bundle = sys.argv[1:]
    print(f"  {'':<52} {'plain':>8} {'mount':>8}")
    plain, shown = shards(source), shards(mount)
    packed = sorted(os.path.join(bundle, n) for n in os.listdir(bundle) if n.endswith("s.hct"))
    if not drop_caches():
        print("  (the page cache cannot be dropped here: cold figures are missing)")
        return

    def line(what, plain_figure, mount_figure, digits):
        left = f"{plain_figure:8.{digits}f}" if plain_figure is not None else f"{'':>8}"
        print(f"  {what:<52} {left} {mount_figure:8.{digits}f}")

    drop_caches()
    disk = sequential(plain, 1)
    again = sequential(plain, 1)
    drop_caches()
    line("one stream from the disk, GB/s", disk, sequential(shown, 1), 2)
    line("  again, from the page cache", again, sequential(shown, 1), 2)
    # What is measured with the .hct files in memory is decoding and FUSE, not the disk.
    for threads in (1, 2):
        drop_caches()
        read_all(packed)
        line(f"{threads} stream{'s' * (threads > 1)}, .hct files in the page cache", None,
             sequential(shown, threads), 2)
    read_all(plain)
    warm = scattered(plain)
    drop_caches()
    read_all(packed)
    line("4 KiB at random, us a read, (.hct) files in memory", warm, scattered(shown), 1)


if __name__ == "__main__":
    main()

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
        os.pread(generator.choice(files), 4096, generator.randrange(size - 4096))
    seconds = time.perf_counter() - start
    for fd in files:
        os.close(fd)
    return 1e6 * seconds / count


def main():
    source, mount, bundle = sys.argv[1:]
    # The .hct files stay in the page cache for the "warm" rows of the mount: what is measured
    # then is decoding and FUSE, not the disk.
    print(f"  {'':<44} {'plain':>8} {'mount':>8}")
    plain, shown = shards(source), shards(mount)
    packed = sorted(os.path.join(bundle, n) for n in os.listdir(bundle) if n.endswith("s.hct"))
    if not drop_caches():
        print("  (the page cache cannot be dropped here: cold figures are missing)")
        return
    figures = []
    for paths in (plain, shown):
        if paths is shown:
            drop_caches()
            read_all(packed)
        figures.append([sequential(paths, 1), sequential(paths, 1)])
    print(f"  {'one stream, nothing read before, GB/s':<44} {figures[0][0]:8.2f} {figures[1][0]:8.2f}")
    print(f"  {'  the same again, from the page cache':<44} {figures[0][1]:8.2f} {figures[1][1]:8.2f}")
    figures = []
    for paths in (plain, shown):
        drop_caches()
        if paths is shown:
            read_all(packed)
        figures.append(scattered(paths))
    print(f"  {'4 KiB at random, microseconds a read':<44} {figures[0]:8.1f} {figures[1]:8.1f}")


if __name__ == "__main__":
    main()

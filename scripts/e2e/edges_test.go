package e2e

import (
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

// TestRequestsAtTheEdges: zero length, the end of the device, unknown flags.
// After each refusal the connection goes on.
func TestRequestsAtTheEdges(t *testing.T) { eachClients(t, testRequestsAtTheEdges) }

func testRequestsAtTheEdges(t *testing.T) {
	if *standIn == "qemu-nbd" {
		t.Skip("qemu-nbd answers EINVAL to a write beyond the end")
	}
	uri, _, _ := newDisk(t, 10*mib)
	nbdsh(t, uri, `
h.set_strict_mode(0)
size = h.get_size()
assert size == 10 * 1048576, size

def refused(what, f, *errnos):
    try:
        f()
    except nbd.Error as e:
        assert e.errno in errnos, "%s: %s, want %s" % (what, e.errno, errnos)
    else:
        assert False, what + " was not refused"
    h.pread(1, 0)  # the connection lives

def either(what, f):
    try:
        f()
    except nbd.Error as e:
        assert e.errno in ("EINVAL", "ENOSPC"), "%s: %s" % (what, e.errno)
    h.pread(1, 0)

# The protocol leaves zero length to the server, which must answer.
either("read of nothing", lambda: h.pread(0, 0))
either("write of nothing", lambda: h.pwrite(b"", 0))
either("trim of nothing", lambda: h.trim(0, 0))
either("zero of nothing", lambda: h.zero(0, 0))
either("cache of nothing", lambda: h.cache(0, 0))
either("read of nothing at the end", lambda: h.pread(0, size))

refused("read at the end", lambda: h.pread(1, size), "EINVAL")
refused("read across the end", lambda: h.pread(1024, size - 512), "EINVAL")
refused("read far away", lambda: h.pread(4096, 1 << 62), "EINVAL")
refused("write at the end", lambda: h.pwrite(b"x", size), "ENOSPC")
refused("write across the end", lambda: h.pwrite(b"x" * 1024, size - 512), "ENOSPC")
refused("trim across the end", lambda: h.trim(1024, size - 512), "EINVAL", "ENOSPC")
refused("zero across the end", lambda: h.zero(1024, size - 512), "ENOSPC", "EINVAL")
refused("cache across the end", lambda: h.cache(1024, size - 512), "EINVAL", "ENOSPC")
refused("unknown flag", lambda: h.pwrite(b"x", 0, flags=0x4000), "EINVAL")
assert h.pread(512, size - 512) == bytearray(512), "a refused write has written"

h.pwrite(b"Z", size - 1)
assert h.pread(2, size - 2) == b"\0Z"
h.pwrite(b"y" * 512, size - 512, nbd.CMD_FLAG_FUA)
h.trim(512, size - 512)
h.flush()
h.zero(512, size - 512)
assert h.pread(512, size - 512) == bytearray(512)
`)
}

// TestUnaligned runs random requests at any byte beside a byte array.
func TestUnaligned(t *testing.T) { eachClients(t, testUnaligned) }

func testUnaligned(t *testing.T) {
	if *standIn == "qemu-nbd" {
		t.Skip("qemu-nbd does not zero what it trims")
	}
	uri, _, _ := newDisk(t, 64*mib)
	seed := rand.Uint32()
	t.Logf("seed %d", seed)
	nbdsh(t, uri, fmt.Sprintf("seed = %d", seed)+`
import random
r = random.Random(seed)
base = h.get_size() - (1 << 20)  # the last mebibyte
model = bytearray(1 << 20)
for step in range(1500):
    n = r.choice([1, r.randint(1, 511), 512, r.randint(1, 4096), 4096, r.randint(1, 70000)])
    off = r.choice([r.randint(0, len(model) - n), min(len(model) - n, r.randint(0, 255) * 4096), len(model) - n])
    op = r.randint(0, 9)
    if op < 5:
        p = bytes([step % 255 + 1]) * n
        h.pwrite(p, base + off, r.choice([0, 0, 0, nbd.CMD_FLAG_FUA]))
        model[off:off+n] = p
    elif op == 5:
        h.zero(n, base + off, r.choice([0, nbd.CMD_FLAG_NO_HOLE]))
        model[off:off+n] = bytes(n)
    elif op == 6:
        h.trim(n, base + off)
        model[off:off+n] = bytes(n)
    else:
        if h.can_df() and r.randint(0, 1):
            got = h.pread_structured(n, base + off, lambda *chunk: 0, nbd.CMD_FLAG_DF)
        else:
            got = h.pread(n, base + off)
        assert got == model[off:off+n], "step %d: %d bytes at %d differ" % (step, n, off)
assert h.pread(len(model), base) == model
`)
}

// TestDiscardWholeDisk: 2 TiB are gone within a second.
func TestDiscardWholeDisk(t *testing.T) {
	uri, _, _ := newDisk(t, 2*tib)
	took := nbdsh(t, uri, `
import time
size = h.get_size()
marks = [0, 5 << 30, (1 << 40) + 12345, size - 4096]
for off in marks:
    h.pwrite(b"m" * 4096, off)
start, off = time.time(), 0
while off < size:
    n = min(size - off, 0xfffff000)
    h.trim(n, off)
    off += n
h.flush()
print(time.time() - start)
for off in marks:
    assert h.pread(4096, off) == bytearray(4096), "%d was not discarded" % off
`)
	seconds, err := strconv.ParseFloat(strings.TrimSpace(took), 64)
	must(t, err)
	t.Logf("2 TiB were discarded in %.3f s", seconds)
	if seconds >= 1 {
		t.Errorf("2 TiB were discarded in %.3f s, want less than 1", seconds)
	}
}

// TestFileSystem: what mke2fs writes through the export is a file system.
// Here it is made in a file and copied, so that no kernel client is needed.
func TestFileSystem(t *testing.T) {
	need(t, "mke2fs", "e2fsck", "nbdcopy")
	uri, _, _ := newDisk(t, 256*mib)
	dir := t.TempDir()
	in, out := filepath.Join(dir, "in.raw"), filepath.Join(dir, "out.raw")
	must(t, os.WriteFile(in, nil, 0o644))
	must(t, os.Truncate(in, 256*mib))
	sh(t, "mke2fs", "-q", "-F", "-t", "ext4", in)
	sh(t, "nbdcopy", in, uri)
	sh(t, "nbdcopy", uri, out)
	sh(t, "e2fsck", "-fn", out)
}

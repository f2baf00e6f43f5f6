package e2e

import (
	"bufio"
	"bytes"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"syscall"
	"testing"

	"openvstorage/nbd/nbdtest"
	"openvstorage/scripts/server"
)

// image writes a file of size bytes with random data in the given parts.
func image(t *testing.T, size int64, parts ...[2]int64) string {
	t.Helper()
	name := filepath.Join(t.TempDir(), "image.raw")
	f, err := os.Create(name)
	must(t, err)
	defer f.Close()
	must(t, f.Truncate(size))
	seed := rand.Uint64()
	t.Logf("image with seed %d", seed)
	var key [32]byte
	copy(key[:], strconv.FormatUint(seed, 36))
	random := rand.NewChaCha8(key)
	for _, part := range parts {
		_, err := f.Seek(part[0], io.SeekStart)
		must(t, err)
		_, err = io.CopyN(f, random, part[1])
		must(t, err)
	}
	return name
}

// same compares two files.
func same(t *testing.T, want, got string) {
	t.Helper()
	a, err := os.Open(want)
	must(t, err)
	defer a.Close()
	b, err := os.Open(got)
	must(t, err)
	defer b.Close()
	p, q := make([]byte, mib), make([]byte, mib)
	in, out := bufio.NewReaderSize(a, mib), bufio.NewReaderSize(b, mib)
	for off := int64(0); ; off += mib {
		n, err1 := io.ReadFull(in, p)
		m, err2 := io.ReadFull(out, q)
		if n != m || !bytes.Equal(p[:n], q[:m]) {
			t.Fatalf("%s and %s differ in the mebibyte at %d", want, got, off)
		}
		if err1 != nil || err2 != nil {
			return
		}
	}
}

// onDisk is how many bytes a file takes.
func onDisk(t *testing.T, name string) int64 {
	t.Helper()
	info, err := os.Stat(name)
	must(t, err)
	return info.Sys().(*syscall.Stat_t).Blocks * 512
}

// TestCopyInAndOut: a full image comes back as it went in.
func TestCopyInAndOut(t *testing.T) {
	nbdtest.EachClients(t, func(t *testing.T, c nbdtest.Clients) {
		size := int64(gib)
		if testing.Short() || c.Suite != "" {
			size = 128 * mib
		}
		testCopyInAndOut(t, size)
	})
}

func testCopyInAndOut(t *testing.T, size int64) {
	in := image(t, size, [2]int64{0, size})
	tools := map[string]struct {
		in, out func(uri, file string) []string
	}{
		"qemu-img": {
			func(uri, file string) []string {
				return []string{"qemu-img", "convert", "-n", "-f", "raw", "-O", "raw", file, uri}
			},
			func(uri, file string) []string {
				return []string{"qemu-img", "convert", "-f", "raw", "-O", "raw", uri, file}
			},
		},
		"nbdcopy": {
			func(uri, file string) []string { return []string{"nbdcopy", "--flush", file, uri} },
			func(uri, file string) []string { return []string{"nbdcopy", uri, file} },
		},
	}
	for name, tool := range tools {
		t.Run(name, func(t *testing.T) {
			need(t, name)
			uri, _, _ := newDisk(t, size)
			out := filepath.Join(t.TempDir(), "out.raw")
			sh(t, tool.in(uri, in)...)
			sh(t, tool.out(uri, out)...)
			same(t, in, out)
		})
	}
}

// TestSparseCopy: a sparse image takes the room of its data, and a copy out reads only
// its data. An nbdkit in between counts what is read.
func TestSparseCopy(t *testing.T) {
	need(t, "qemu-img", "nbdcopy", "nbdinfo", "nbdkit")
	const data = 32 * mib
	in := image(t, gib, [2]int64{16 * mib, data / 2}, [2]int64{900 * mib, data / 2})
	uri, socket, export := newDisk(t, gib)
	sh(t, "qemu-img", "convert", "-n", "--target-is-zero", "-f", "raw", "-O", "raw", in, uri)
	if got := allocated(allocation(t, uri)); got != data {
		t.Errorf("%d bytes are allocated, want %d", got, data)
	}

	dir := t.TempDir()
	stats, out := filepath.Join(dir, "stats"), filepath.Join(dir, "out.raw")
	c := server.NBDKit(dir, "count", "nbd", "socket="+socket, "export="+export, "statsfile="+stats)
	c.Args = append([]string{c.Args[0], "--filter=stats"}, c.Args[1:]...)
	count, err := server.Start(c)
	must(t, err)
	defer count.Kill()
	sh(t, "nbdcopy", c.URI(""), out)
	must(t, count.Stop(stopMax))
	text, err := os.ReadFile(stats)
	must(t, err)
	if read := statBytes(t, string(text), "read"); read > data+mib {
		t.Errorf("the copy read %d bytes, of which %d are data", read, data)
	}
	same(t, in, out)
	if got := onDisk(t, out); got > data+mib {
		t.Errorf("the copy takes %d bytes on disk, of which %d are data", got, data)
	}
}

// statBytes reads the bytes of one operation from what nbdkit's stats filter
// wrote, as in "read: 123 ops, 0.1 s, 32.00 MiB, ...".
func statBytes(t *testing.T, text, op string) int64 {
	t.Helper()
	m := regexp.MustCompile(`(?m)^` + op + `: .*?([0-9.]+) (bytes|KiB|MiB|GiB)`).FindStringSubmatch(text)
	if m == nil {
		t.Fatalf("no %s in the statistics:\n%s", op, text)
	}
	n, err := strconv.ParseFloat(m[1], 64)
	must(t, err)
	unit := map[string]float64{"bytes": 1, "KiB": 1 << 10, "MiB": mib, "GiB": gib}[m[2]]
	return int64(n * unit)
}

// TestSparseCopyTakesNoRoom: zeros that are not written are not stored.
func TestSparseCopyTakesNoRoom(t *testing.T) {
	need(t, "qemu-img")
	s := up(t)
	uri := s.create("disk", gib)
	const data = 32 * mib
	in := image(t, gib, [2]int64{mib, data})
	sh(t, "qemu-img", "convert", "-n", "-f", "raw", "-O", "raw", in, uri)
	s.ovs("vdisk", "sync", "disk")
	if info := s.info("disk"); info.Stored > 2*data {
		t.Errorf("%d bytes are stored for %d bytes of data", info.Stored, data)
	}
	out := filepath.Join(t.TempDir(), "out.raw")
	sh(t, "qemu-img", "convert", "-f", "raw", "-O", "raw", uri, out)
	same(t, in, out)
}

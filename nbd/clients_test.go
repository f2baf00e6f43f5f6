package nbd_test

import (
	"bytes"
	"encoding/json"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"openvstorage/nbd"
	"openvstorage/nbd/nbdclient"
	"openvstorage/nbd/nbdtest"
)

// Real clients against a server in this process: those of this Debian, and those
// of later ones.

// runClient runs a program and returns what it printed.
func runClient(t *testing.T, clients nbdtest.Clients, name string, args ...string) string {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), clients.Program(t, name), args...)
	cmd.Dir = t.TempDir()
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%s %s: %v\n%s", name, strings.Join(args, " "), err, out)
	}
	return string(out)
}

func (s *served) uri() string { return "nbd+unix:///disk?socket=" + s.addr }

func TestNbdinfo(t *testing.T) { nbdtest.EachClients(t, testNbdinfo) }

func testNbdinfo(t *testing.T, c nbdtest.Clients) {
	s := serve(t, nbdtest.NewMemory(1<<20), nbd.Limits{})
	var info struct {
		Protocol   string
		Structured bool
		Exports    []map[string]any
	}
	out := runClient(t, c, "nbdinfo", "--json", s.uri())
	if err := json.Unmarshal([]byte(out), &info); err != nil || len(info.Exports) != 1 {
		t.Fatalf("%v\n%s", err, out)
	}
	if info.Protocol != "newstyle-fixed" || !info.Structured {
		t.Errorf("%+v", info)
	}
	for key, want := range map[string]any{
		"export-name": "disk", "export-size": float64(1 << 20), "is_read_only": false, "can_cache": true, "can_df": true,
		"can_fast_zero": true, "can_flush": true, "can_fua": true, "can_multi_conn": true, "can_trim": true, "can_zero": true,
		"block_size_minimum": float64(1), "block_size_preferred": float64(4096), "block_size_maximum": float64(32 << 20),
	} {
		if got := info.Exports[0][key]; got != want {
			t.Errorf("%s is %v, want %v", key, got, want)
		}
	}
	if out := runClient(t, c, "nbdinfo", "--list", "--json", "nbd+unix://?socket="+s.addr); !strings.Contains(out, `"export-name": "disk"`) {
		t.Errorf("list:\n%s", out)
	}
	if out := runClient(t, c, "nbdinfo", "--map", s.uri()); strings.Join(strings.Fields(out), " ") != "0 1048576 3 hole,zero" {
		t.Errorf("map:\n%s", out)
	}
}

func TestNbdsh(t *testing.T) { nbdtest.EachClients(t, testNbdsh) }

func testNbdsh(t *testing.T, c nbdtest.Clients) {
	s := serve(t, nbdtest.NewMemory(4<<20), nbd.Limits{})
	runClient(t, c, "nbdsh", "-u", s.uri(), "-c", `
def fails(f, errno):
    try:
        f()
    except nbd.Error as e:
        assert e.errno == errno, e.errno
        return
    assert False, "no error"

h.pwrite(b"x" * 5000, 3)
assert h.pread(5002, 2) == b"\0" + b"x" * 5000 + b"\0"
h.pwrite(b"y" * 3000000, 1000, nbd.CMD_FLAG_FUA)
assert h.pread_structured(3000000, 1000, lambda b, o, s, e: None, nbd.CMD_FLAG_DF) == b"y" * 3000000
h.flush()
h.trim(8192, 4096, nbd.CMD_FLAG_FUA)
assert h.pread(8192, 4096) == b"\0" * 8192
h.zero(4096, 16384, nbd.CMD_FLAG_NO_HOLE | nbd.CMD_FLAG_FAST_ZERO | nbd.CMD_FLAG_FUA)
assert h.pread(4096, 16384) == b"\0" * 4096
h.cache(4096, 0)
h.set_strict_mode(0)
fails(lambda: h.pread(2, (4 << 20) - 1), "EINVAL")
fails(lambda: h.pwrite(b"xx", (4 << 20) - 1), "ENOSPC")
fails(lambda: h.trim(1, 4 << 20), "EINVAL")
h.pread(1, 0)
cs = [h.aio_pwrite(nbd.Buffer.from_bytearray(bytearray([i]) * 4096), i * 4096) for i in range(64)]
while h.aio_in_flight() > 0:
    h.poll(-1)
    for c in list(cs):
        if h.aio_command_completed(c):
            cs.remove(c)
for i in range(64):
    assert h.pread(4096, i * 4096) == bytes([i]) * 4096
h.shutdown()
`)
}

func TestNbdshOldClients(t *testing.T) { nbdtest.EachClients(t, testNbdshOldClients) }

func testNbdshOldClients(t *testing.T, c nbdtest.Clients) {
	s := serve(t, nbdtest.NewMemory(1<<20), nbd.Limits{})
	// No option but EXPORT_NAME, with and without NO_ZEROES; simple replies.
	for _, flags := range []string{"0", "1", "3"} {
		runClient(t, c, "nbdsh", "-c", `
h.set_handshake_flags(`+flags+`)
h.set_request_structured_replies(False)
h.set_export_name("disk")
h.connect_unix("`+s.addr+`")
h.pwrite(b"old" * 1000, 100)
assert h.pread(3000, 100) == b"old" * 1000
h.flush()
h.shutdown()
`)
	}
}

func TestQemuIO(t *testing.T) { nbdtest.EachClients(t, testQemuIO) }

func testQemuIO(t *testing.T, c nbdtest.Clients) {
	s := serve(t, nbdtest.NewMemory(4<<20), nbd.Limits{})
	out := runClient(t, c, "qemu-io", "-f", "raw",
		"-c", "write -P 0x5a 0 64k", "-c", "write -f -P 0x11 64k 1M", "-c", "write -z 32k 16k", "-c", "write -z -u 0 16k",
		"-c", "discard 1M 64k", "-c", "flush", "-c", "read -P 0 0 16k", "-c", "read -P 0x5a 16k 16k", "-c", "read -P 0 32k 16k",
		"-c", "read -P 0x11 64k 900k", "-c", "aio_write -P 1 2M 512", "-c", "aio_write -P 2 3M 1M", "-c", "aio_flush",
		"-c", "read -P 2 3M 1M", "-c", "map", s.uri())
	if strings.Contains(out, "failed") || strings.Contains(out, "error") {
		t.Error(out)
	}
}

func TestQemuImgConvert(t *testing.T) { nbdtest.EachClients(t, testQemuImgConvert) }

func testQemuImgConvert(t *testing.T, c nbdtest.Clients) {
	s := serve(t, nbdtest.NewMemory(8<<20), nbd.Limits{})
	s.client(nbdclient.Options{}).WriteAt([]byte(strings.Repeat("data", 300000)), 12345)
	dir := t.TempDir()
	runClient(t, c, "qemu-img", "convert", "-f", "raw", "-O", "raw", s.uri(), dir+"/copy")
	runClient(t, c, "qemu-img", "compare", "-f", "raw", "-F", "raw", s.uri(), dir+"/copy")
}

func TestFio(t *testing.T) { nbdtest.EachClients(t, testFio) }

func testFio(t *testing.T, c nbdtest.Clients) {
	s := serve(t, nbdtest.NewMemory(8<<20), nbd.Limits{})
	if out, err := exec.Command(c.Program(t, "fio"), "--enghelp").CombinedOutput(); err != nil || !strings.Contains(string(out), "nbd") {
		t.Skip("fio with its nbd engine is not installed")
	}
	runClient(t, c, "fio", "--name=verify", "--ioengine=nbd", "--uri="+s.uri(), "--rw=randrw", "--bsrange=4k-512k", "--iodepth=32",
		"--size=8m", "--verify=crc32c", "--fsync=16")
}

// TestExtendedWrites: clients that agree on extended headers can write with them. QEMU's programs leave
// the payload flag out. libnbd sets it, unless its caller turns that off.
func TestExtendedWrites(t *testing.T) { nbdtest.EachClients(t, testExtendedWrites) }

func testExtendedWrites(t *testing.T, c nbdtest.Clients) {
	if c.Suite == "" && !strings.Contains(runClient(t, c, "nbdinfo", "--help"), "extended-headers") {
		t.Skip("the clients that are installed are older than extended headers")
	}
	const diskSize = 8 << 20
	noise := make([]byte, 4<<20)
	rand.NewChaCha8([32]byte{1}).Read(noise)
	file := filepath.Join(t.TempDir(), "image.raw")
	if err := os.WriteFile(file, noise, 0o600); err != nil {
		t.Fatal(err)
	}
	for name, write := range map[string]func(t *testing.T, uri string){
		"qemu-io": func(t *testing.T, uri string) {
			runClient(t, c, "qemu-io", "-f", "raw", "-c", "write -s "+file+" 0 4M", "-c", "write -P 1 4M 3", "-c", "write -f -P 2 5M 64k",
				"-c", "write -z -u 6M 1M", "-c", "discard 7M 64k", "-c", "flush", "-c", "read -P 2 5M 64k", uri)
		},
		"qemu-img": func(t *testing.T, uri string) {
			runClient(t, c, "qemu-img", "convert", "-n", "-f", "raw", "-O", "raw", file, uri)
		},
		"qemu-img bench": func(t *testing.T, uri string) {
			runClient(t, c, "qemu-img", "convert", "-n", "-f", "raw", "-O", "raw", file, uri)
			runClient(t, c, "qemu-img", "bench", "-f", "raw", "-w", "-t", "none", "-c", "200", "-d", "32", "-s", "8k", "-o", "4M", "--flush-interval=64", uri)
		},
		"qemu-nbd":    func(t *testing.T, uri string) { throughQemuNBD(t, c, uri, file) },
		"nbdcopy":     func(t *testing.T, uri string) { runClient(t, c, "nbdcopy", "--flush", file, uri) },
		"nbdsh":       func(t *testing.T, uri string) { pwrite(t, c, uri, file, "") },
		"nbdsh, QEMU": func(t *testing.T, uri string) { pwrite(t, c, uri, file, "h.set_strict_mode(0)") },
	} {
		t.Run(name, func(t *testing.T) {
			disk := nbdtest.NewMemory(diskSize)
			s := serve(t, disk, nbd.Limits{})
			seen := &sniffer{}
			write(t, "nbd+unix:///disk?socket="+seen.proxy(t, s.addr))
			if seen.extended.Load() == 0 {
				t.Error("no request had an extended header")
			}
			got := make([]byte, len(noise))
			if _, err := s.client(nbdclient.Options{}).ReadAt(got, 0); err != nil || !bytes.Equal(got, noise) {
				t.Errorf("other bytes are on the disk (%v)", err)
			}
		})
	}
}

// pwrite writes a file by libnbd, in pieces of several lengths.
func pwrite(t *testing.T, c nbdtest.Clients, uri, file, before string) {
	t.Helper()
	runClient(t, c, "nbdsh", "-u", uri, "-c", before+`
assert h.get_extended_headers_negotiated()
data, off, n = open("`+file+`", "rb").read(), 0, 1
while off < len(data):
    h.pwrite(data[off:off+n], off)
    off += len(data[off:off+n])
    n = n * 3 % 1000003
assert h.pread(len(data), 0) == data
h.shutdown()
`)
}

// throughQemuNBD has qemu-nbd serve the disk on, and writes to that.
func throughQemuNBD(t *testing.T, c nbdtest.Clients, uri, file string) {
	t.Helper()
	dir := t.TempDir()
	socket, pid := filepath.Join(dir, "q"), filepath.Join(dir, "pid")
	// --fork: it returns when the server is ready; that ends with its client.
	cmd := exec.CommandContext(t.Context(), c.Program(t, "qemu-nbd"), "--fork", "--pid-file="+pid, "--socket="+socket, "--format=raw", uri)
	if err := cmd.Run(); err != nil {
		t.Fatalf("qemu-nbd: %v", err)
	}
	runClient(t, c, "qemu-img", "convert", "-n", "-f", "raw", "-O", "raw", file, "nbd+unix:///?socket="+socket)
}

// sniffer is a proxy that counts what its clients send with extended headers.
type sniffer struct{ extended atomic.Int64 }

// proxy listens for clients of the server at addr, and returns where.
func (s *sniffer) proxy(t *testing.T, addr string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "p")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	var running sync.WaitGroup
	t.Cleanup(running.Wait)
	t.Cleanup(func() { l.Close() })
	running.Go(func() {
		for {
			in, err := l.Accept()
			if err != nil {
				return
			}
			out, err := net.Dial("unix", addr)
			if err != nil {
				t.Error(err)
				in.Close()
				return
			}
			running.Go(func() {
				_, _ = io.Copy(out, io.TeeReader(in, s))
				_ = out.(*net.UnixConn).CloseWrite()
			})
			running.Go(func() {
				_, _ = io.Copy(in, out)
				_, _ = in.Close(), out.Close()
			})
		}
	})
	return path
}

// Write looks for the magic of extended requests. One that is cut in two is not
// seen: one is enough.
func (s *sniffer) Write(p []byte) (int, error) {
	s.extended.Add(int64(bytes.Count(p, []byte{0x21, 0xe4, 0x1c, 0x71})))
	return len(p), nil
}

package nbd_test

import (
	"encoding/json"
	"os"
	"os/exec"
	"strings"
	"testing"

	"openvstorage/nbd"
	"openvstorage/nbd/nbdclient"
	"openvstorage/nbd/nbdtest"
)

// Real clients against a server in this process.

// client runs a program and returns what it printed.
func runClient(t *testing.T, name string, args ...string) string {
	t.Helper()
	path, err := exec.LookPath(name)
	if err != nil {
		t.Skipf("%s is not installed", name)
	}
	cmd := exec.CommandContext(t.Context(), path, args...)
	cmd.Dir = t.TempDir()
	// nbdsh is a script for the distribution's python.
	cmd.Env = append(os.Environ(), "PATH=/usr/bin:"+os.Getenv("PATH"))
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%s %s: %v\n%s", name, strings.Join(args, " "), err, out)
	}
	return string(out)
}

func (s *served) uri() string { return "nbd+unix:///disk?socket=" + s.addr }

func TestNbdinfo(t *testing.T) {
	s := serve(t, nbdtest.NewMemory(1<<20), nbd.Limits{})
	var info struct {
		Protocol   string
		Structured bool
		Exports    []map[string]any
	}
	out := runClient(t, "nbdinfo", "--json", s.uri())
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
	if out := runClient(t, "nbdinfo", "--list", "--json", "nbd+unix://?socket="+s.addr); !strings.Contains(out, `"export-name": "disk"`) {
		t.Errorf("list:\n%s", out)
	}
	if out := runClient(t, "nbdinfo", "--map", s.uri()); strings.Join(strings.Fields(out), " ") != "0 1048576 3 hole,zero" {
		t.Errorf("map:\n%s", out)
	}
}

func TestNbdsh(t *testing.T) {
	s := serve(t, nbdtest.NewMemory(4<<20), nbd.Limits{})
	runClient(t, "nbdsh", "-u", s.uri(), "-c", `
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

func TestNbdshOldClients(t *testing.T) {
	s := serve(t, nbdtest.NewMemory(1<<20), nbd.Limits{})
	// No option but EXPORT_NAME, with and without NO_ZEROES; simple replies.
	for _, flags := range []string{"0", "1", "3"} {
		runClient(t, "nbdsh", "-c", `
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

func TestQemuIO(t *testing.T) {
	s := serve(t, nbdtest.NewMemory(4<<20), nbd.Limits{})
	out := runClient(t, "qemu-io", "-f", "raw",
		"-c", "write -P 0x5a 0 64k", "-c", "write -f -P 0x11 64k 1M", "-c", "write -z 32k 16k", "-c", "write -z -u 0 16k",
		"-c", "discard 1M 64k", "-c", "flush", "-c", "read -P 0 0 16k", "-c", "read -P 0x5a 16k 16k", "-c", "read -P 0 32k 16k",
		"-c", "read -P 0x11 64k 900k", "-c", "aio_write -P 1 2M 512", "-c", "aio_write -P 2 3M 1M", "-c", "aio_flush",
		"-c", "read -P 2 3M 1M", "-c", "map", s.uri())
	if strings.Contains(out, "failed") || strings.Contains(out, "error") {
		t.Error(out)
	}
}

func TestQemuImgConvert(t *testing.T) {
	s := serve(t, nbdtest.NewMemory(8<<20), nbd.Limits{})
	c := s.client(nbdclient.Options{})
	c.WriteAt([]byte(strings.Repeat("data", 300000)), 12345)
	dir := t.TempDir()
	runClient(t, "qemu-img", "convert", "-f", "raw", "-O", "raw", s.uri(), dir+"/copy")
	runClient(t, "qemu-img", "compare", "-f", "raw", "-F", "raw", s.uri(), dir+"/copy")
}

func TestFio(t *testing.T) {
	s := serve(t, nbdtest.NewMemory(8<<20), nbd.Limits{})
	if out, err := exec.Command("fio", "--enghelp").CombinedOutput(); err != nil || !strings.Contains(string(out), "nbd") {
		t.Skip("fio with its nbd engine is not installed")
	}
	runClient(t, "fio", "--name=verify", "--ioengine=nbd", "--uri="+s.uri(), "--rw=randrw", "--bsrange=4k-512k", "--iodepth=32",
		"--size=8m", "--verify=crc32c", "--fsync=16")
}

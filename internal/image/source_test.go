package image

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"golang.org/x/sys/unix"

	"openvstorage/internal/naming"
)

// TestSourceThatChanges: an image that is written while it is read is of no one
// moment, whether it shrinks, grows, or stays as long as it was.
func TestSourceThatChanges(t *testing.T) {
	for name, c := range map[string]struct {
		sparse bool
		change func(f *os.File) error
		want   string
	}{
		"shrinks":           {false, func(f *os.File) error { return f.Truncate(pieceSize) }, "changed while it was read: it had 4194304 bytes, and has 1048576"},
		"shrinks in a hole": {true, func(f *os.File) error { return f.Truncate(2 * pieceSize) }, "changed while it was read: it had 4194304 bytes, and has 2097152"},
		"is emptied":        {false, func(f *os.File) error { return f.Truncate(0) }, "and has 0"},
		"grows":             {false, func(f *os.File) error { return f.Truncate(8 * pieceSize) }, "and has 8388608"},
		"is written": {false, func(f *os.File) error {
			_, err := f.WriteAt([]byte("new"), 0)
			then := time.Now().Add(time.Minute) // clocks of file systems are coarse
			return errors.Join(err, os.Chtimes(f.Name(), then, then))
		}, "was written while it was read"},
		"stays": {true, func(*os.File) error { return nil }, ""},
	} {
		path := filepath.Join(t.TempDir(), "image.raw")
		f, err := os.Create(path)
		if err != nil {
			t.Fatal(err)
		}
		data := make([]byte, 4*pieceSize)
		if c.sparse {
			data = data[:pieceSize]
		}
		data[0] = 1
		if _, err := f.Write(data); err != nil || f.Truncate(4*pieceSize) != nil {
			t.Fatal(err)
		}
		s, err := Open(t.Context(), path, Options{})
		if err != nil {
			t.Fatal(err)
		}
		changed := false
		err = s.each(t.Context(), func(int64, []byte) error {
			if changed {
				return nil
			}
			changed = true
			return c.change(f)
		})
		if c.want == "" && err != nil || c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
			t.Errorf("an image that %s: %v", name, err)
		}
		s.Close()
		f.Close()
	}
}

// TestWaitForPipeIsCancelled: neither the open of a pipe that nobody writes to nor
// the read of it holds a signal up.
func TestWaitForPipeIsCancelled(t *testing.T) {
	path := filepath.Join(t.TempDir(), "pipe")
	if err := unix.Mkfifo(path, 0o600); err != nil {
		t.Fatal(err)
	}
	stopped := errors.New("stopped")
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(stopped)
	if _, err := Open(ctx, path, Options{}); !errors.Is(err, stopped) {
		t.Errorf("open: %v", err)
	}
	writer, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer writer.Close()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	s := &Source{File: f, name: path}
	if err := s.openPipe(ctx); !errors.Is(err, stopped) {
		t.Errorf("first read: %v", err)
	}
	if err := s.each(ctx, func(int64, []byte) error { return nil }); !errors.Is(err, stopped) {
		t.Errorf("read: %v", err)
	}
}

func TestImportingName(t *testing.T) {
	long := strings.Repeat("d", 200) + "/"
	for name, want := range map[string]string{
		"a": "a.importing", "team/a": "team/a.importing",
		strings.Repeat("x", 245):                               strings.Repeat("x", 245) + ".importing",
		strings.Repeat("x", 246):                               "",
		strings.Repeat("x", 255):                               "",
		strings.Repeat("é", 127):                               "",
		strings.Repeat(long, 5) + strings.Repeat("y", 19):      "",
		strings.Repeat(long, 5) + strings.Repeat("漢", 6) + "y": "",
		strings.Repeat("e/", 511) + "yz":                       "",
	} {
		got := importingName(name)
		if err := naming.Check(got); naming.Check(name) != nil || err != nil || !utf8.ValidString(got) || !strings.HasSuffix(got, importing) || want != "" && got != want {
			t.Errorf("%q is imported as %q: %v", name, got, err)
		}
	}
	if importingName(strings.Repeat("x", 250)+"1") == importingName(strings.Repeat("x", 250)+"2") {
		t.Error("two vDisks are imported under one name")
	}
}

// TestPromised: what an image says about its own length, and that nothing in it
// makes that fail.
func TestPromised(t *testing.T) {
	p := make([]byte, 72<<10)
	for _, c := range []struct {
		name string
		set  func()
		want int64
	}{
		{"zeros", func() {}, 0},
		{"a partition", func() { p[510], p[511], p[450], p[454], p[458] = 0x55, 0xaa, 0x83, 8, 16 }, 24 * 512},
		{"a boot sector of something else", func() { p[446] = 3 }, 0},
		{"a GPT", func() {
			p[446], p[450] = 0, 0xee
			copy(p[512:], "EFI PART")
			p[544] = 99
		}, 100 * 512},
		{"a GPT of nonsense", func() { p[551] = 0xff }, 0},
		{"ext4", func() { p[1080], p[1081], p[1048], p[1028] = 0x53, 0xef, 2, 10 }, 40960},
		{"ext4 of nonsense", func() { p[1048] = 200 }, 0},
		{"XFS", func() { copy(p, "XFSB\x00\x00\x10\x00\x00\x00\x00\x00\x00\x00\x00\x07") }, 7 * 4096},
		{"XFS of nonsense", func() { copy(p[8:], "\xff\xff") }, 0},
		{"Btrfs", func() {
			copy(p[64<<10+64:], "_BHRfS_M")
			copy(p[64<<10+209:], "\x00\x00\x80\x0c\x00\x00\x00\x00")
		}, 200 << 20},
		{"Btrfs of nonsense", func() { p[64<<10+216] = 0xff }, 0},
	} {
		c.set()
		if got, _ := promised(p); got != c.want {
			t.Errorf("%s: %d bytes, want %d", c.name, got, c.want)
		}
	}
	for n := range p {
		if n <= 4096 || n >= 64<<10 {
			promised(p[:n])
		}
	}
}

// FuzzImageHead: no first bytes make the look at them fail.
func FuzzImageHead(f *testing.F) {
	for _, m := range heads {
		f.Add(append(make([]byte, m.at), m.bytes...))
	}
	f.Add([]byte("BZh91AY&SY"))
	f.Fuzz(func(t *testing.T, p []byte) {
		if n, _ := promised(p); n < 0 {
			t.Errorf("an image of %d bytes", n)
		}
		for _, m := range [][]magic{heads, tails} {
			if format := notRaw(m, p); format != nil && format.refuse("x") == nil {
				t.Errorf("%s is taken", format.name)
			}
		}
	})
}

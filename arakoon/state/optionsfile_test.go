package state

import (
	"maps"
	"os"
	"path"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"openvstorage/internal/disk"
	"openvstorage/internal/disk/crashdisk"
	"openvstorage/internal/disk/osdisk"
)

// Whichever bit of an OPTIONS file flips, the state opens with all that it had.
func TestDamagedOptions(t *testing.T) {
	fsys := crashdisk.New()
	s := open(t, fsys)
	seq := &Sequence{}
	seq.Set([]byte("key"), []byte("value"))
	apply(t, s, Command{Body: body(t, seq)})
	want := dump(t, s)
	if _, err := s.Flush(); err != nil {
		t.Fatal(err)
	}
	name := ""
	names, err := fsys.ReadDir(s.opt.Dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, n := range names {
		if strings.HasPrefix(n, "OPTIONS-") {
			name = path.Join(s.opt.Dir, n)
		}
	}
	f, err := fsys.OpenFile(name, 0, 0)
	if err != nil {
		t.Fatal(err)
	}
	size, err := f.Size()
	if err != nil {
		t.Fatal(err)
	}
	f.Close()
	for off := int64(0); off < size; off += 97 {
		image := fsys.Kill()
		flip(t, image, name, off)
		s := open(t, image)
		if have := dump(t, s); !maps.Equal(have, want) {
			t.Errorf("a bit flipped at %d of %d: %v, want %v", off, size, have, want)
		}
	}
}

// An OPTIONS file that has grown is no more read than one that is damaged is
// believed: the state opens with all that it had, and takes no more memory.
func TestGrownOptions(t *testing.T) {
	opt := Options{FS: osdisk.New(), Dir: t.TempDir(), Cluster: testCluster, Member: 3, Begin: Position{Index: 1, Term: 1}}
	s, err := Open(opt)
	if err != nil {
		t.Fatal(err)
	}
	seq := &Sequence{}
	seq.Set([]byte("key"), []byte("value"))
	apply(t, s, Command{Body: body(t, seq)})
	want := dump(t, s)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	grown, err := filepath.Glob(opt.Dir + "/OPTIONS-*")
	if err != nil || len(grown) == 0 {
		t.Fatal(grown, err)
	}
	for _, name := range grown {
		if err := os.Truncate(name, 6<<30); err != nil {
			t.Fatal(err)
		}
	}
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	if s, err = Open(opt); err != nil {
		t.Fatal(err)
	}
	runtime.ReadMemStats(&after)
	if took := after.TotalAlloc - before.TotalAlloc; took > 64<<20 {
		t.Errorf("opening took %d bytes of memory", took)
	}
	if have := dump(t, s); !maps.Equal(have, want) {
		t.Errorf("%v, want %v", have, want)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
}

func flip(t *testing.T, fsys disk.FS, name string, off int64) {
	t.Helper()
	f, err := fsys.OpenFile(name, disk.Write, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var b [1]byte
	if _, err := f.ReadAt(b[:], off); err != nil {
		t.Fatal(err)
	}
	b[0] ^= 1
	if _, err := f.WriteAt(b[:], off); err != nil {
		t.Fatal(err)
	}
}

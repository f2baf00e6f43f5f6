package embedded

import (
	"fmt"
	"path"
	"strings"
	"sync"
	"testing"

	"openvstorage/internal/disk"
)

// volumes puts each ASD on a file system of its own, of a size.
type volumes struct {
	disk.FS
	mu    sync.Mutex
	sizes []uint64
}

// set gives ASD i another size; with one that is not there, all share one.
func (v *volumes) set(sizes ...uint64) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.sizes = sizes
}

// Statfs implements disk.FS.
func (v *volumes) Statfs(name string) (disk.Usage, error) {
	u, err := v.FS.Statfs(name)
	v.mu.Lock()
	defer v.mu.Unlock()
	for i, size := range v.sizes {
		if dir := fmt.Sprintf("/data/asd/%d", i); name == dir || strings.HasPrefix(name, dir+"/") {
			used := held(v.FS, dir)
			return disk.Usage{Total: size, Free: size - min(size, used), ID: uint64(i + 1)}, err
		}
	}
	u.ID = 99
	return u, err
}

// held is the bytes of the files of a directory.
func held(fs disk.FS, dir string) (sum uint64) {
	names, err := fs.ReadDir(dir)
	if err != nil {
		if info, err := fs.Stat(dir); err == nil {
			sum = uint64(info.Size())
		}
		return sum
	}
	for _, name := range names {
		sum += held(fs, path.Join(dir, name))
	}
	return sum
}

// What there is room for follows the disks: parity takes its share, the fullest
// of as many as an object needs decides, and what is put is used.
func TestSpace(t *testing.T) {
	const gib = uint64(1) << 30
	fs := &volumes{FS: newDisk(t)}
	fs.set(3*gib, 3*gib, 3*gib)
	b := open(t, fs)
	defer func() { must(t, b.Close()) }()
	about := func(what string, got, want uint64) {
		t.Helper()
		if got > want || got < want/100*85 { // what ASDs keep free, and their own files
			t.Errorf("%s: %d MiB, want a little below %d", what, got>>20, want>>20)
		}
	}
	space := func() (used, free uint64) {
		t.Helper()
		b.ReopenDisks(ctx)
		used, free, err := b.Space(ctx)
		must(t, err)
		return used, free
	}
	used, free := space()
	about("three disks of 3 GiB", free, 6*gib)
	if used > 64<<20 {
		t.Errorf("%d bytes are used of an empty one", used)
	}
	if _, usage, err := b.Usage(ctx); err != nil || usage != free {
		t.Errorf("Usage says that %d are free, %v; Space %d", usage, err, free)
	}
	must(t, b.CreateNamespace(ctx, "ns"))
	ns := b.Namespace("ns")
	big := make([]byte, 8<<20)
	for i := range big {
		big[i] = byte(i * i >> 7)
	}
	for i := range 16 {
		must(t, ns.Put(ctx, fmt.Sprint("o", i), big))
	}
	more, less := space()
	if took := more - used; took < 120<<20 || took > 160<<20 {
		t.Errorf("128 MiB were put, %d MiB more are used", took>>20)
	}
	if took := free - less; took < 110<<20 || took > 160<<20 {
		t.Errorf("128 MiB were put, %d MiB less are free", took>>20)
	}
	fs.set(3*gib, gib, 3*gib)
	_, free = space()
	about("one of the three has 1 GiB", free, 2*gib)
	fs.set(3*gib, 3*gib)
	_, free = space()
	about("the third shares a file system with the data directory", free, 6*gib)
	fs.set(16<<20, 3*gib, 3*gib)
	_, free = space()
	about("one is full: what is put is without parity for now", free, 6*gib)
	fs.set(16<<20, 16<<20, 16<<20)
	if _, free = space(); free != 0 {
		t.Errorf("all are full, %d bytes are free", free)
	}
	fs.set() // all on one
	u, err := fs.Statfs("/data")
	must(t, err)
	_, free = space()
	about("all three on one file system", free, u.Free/3*2)
}

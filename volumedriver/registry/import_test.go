package registry_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"openvstorage/internal/disk"
	"openvstorage/internal/disk/crashdisk"
	"openvstorage/internal/format"
	"openvstorage/volumedriver/registry"
	"openvstorage/volumedriver/registry/registrytest"

	"github.com/google/uuid"
)

var ctx = context.Background()

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func openFiles(fsys disk.FS) (registry.Keys, func() error, error) {
	keys, err := registrytest.Open(fsys, "keys")
	if err != nil {
		return nil, nil, err
	}
	return keys, keys.Close, nil
}

func TestRegistry(t *testing.T) { registrytest.Run(t, openFiles) }

// records of an older release, more than one swap takes.
func records(n int) []registry.Record {
	list := make([]registry.Record, n)
	for i := range list {
		list[i] = registry.Record{
			ID: uuid.NewSHA1(uuid.Nil, fmt.Append(nil, i)), Name: fmt.Sprintf("vm/%04d", i), Epoch: uint64(i), Owner: "host",
			Created: time.Unix(1700000000, int64(i)).UTC(), Deleting: i%7 == 0,
		}
	}
	return list
}

func writeFile(t testing.TB, fsys disk.FS, name string, b []byte) {
	t.Helper()
	f, err := fsys.OpenFile(name, disk.Write|disk.Create|disk.Truncate, 0o644)
	must(t, err)
	_, err = f.WriteAt(b, 0)
	must(t, errors.Join(err, f.Datasync(), f.Close(), fsys.SyncDir("r")))
}

// older makes a disk with the files of an older release, one of each content.
func older(t testing.TB, files ...[]byte) *crashdisk.FS {
	t.Helper()
	d := crashdisk.New()
	must(t, errors.Join(d.MkdirAll("r", 0o755), d.SyncDir("")))
	for i, b := range files {
		if b != nil {
			writeFile(t, d, fmt.Sprintf("r/registry.%d", i), b)
		}
	}
	return d
}

func holds(t testing.TB, keys registry.Keys, want []registry.Record) {
	t.Helper()
	must(t, registry.Check(ctx, keys))
	r, err := registry.Open(ctx, keys)
	must(t, err)
	list, err := r.List(ctx)
	must(t, err)
	if fmt.Sprint(list) != fmt.Sprint(want) {
		t.Fatalf("%d vDisks, not the %d that there were", len(list), len(want))
	}
}

// cut fails swaps and renames from the n-th on.
type cut struct {
	registry.Keys
	disk.FS
	left *int
}

var errCut = errors.New("cut")

func (c cut) spend() error {
	if *c.left--; *c.left < 0 {
		return errCut
	}
	return nil
}

func (c cut) Swap(ctx context.Context, swaps []registry.Swap) (bool, error) {
	if err := c.spend(); err != nil {
		return false, err
	}
	return c.Keys.Swap(ctx, swaps)
}

func (c cut) Rename(from, to string) error {
	if err := c.spend(); err != nil {
		return err
	}
	return c.FS.Rename(from, to)
}

// Wherever an import ends, the next one has all, and nothing is served before.
func TestImport(t *testing.T) {
	list := records(600)
	file := registry.EncodeFile(9, list)
	for n := 0; ; n++ {
		d := older(t, file, file)
		keys, err := registrytest.Open(d, "keys")
		must(t, err)
		left := n
		_, err = registry.Import(ctx, cut{Keys: keys, left: &left}, cut{FS: d, left: &left}, "r")
		if left >= 0 {
			must(t, err)
			if n < 7 {
				t.Fatalf("it took %d steps", n)
			}
			break
		}
		if !errors.Is(err, errCut) {
			t.Fatal(err)
		}
		if n > 0 && n < 5 { // five swaps, two renames
			if _, err := registry.Open(ctx, keys); !errors.Is(err, registry.ErrImport) {
				t.Fatalf("step %d: half an import is served: %v", n, err)
			}
		}
		d = d.Kill()
		keys, err = registrytest.Open(d, "keys")
		must(t, err)
		_, err = registry.Import(ctx, keys, d, "r")
		must(t, err)
		holds(t, keys, list)
		// It is done once: what was removed since stays removed.
		r, err := registry.Open(ctx, keys)
		must(t, err)
		must(t, r.Remove(ctx, list[0].ID, list[0].Holder()))
		if m, err := registry.Import(ctx, keys, d, "r"); m != 0 || err != nil {
			t.Fatal(m, err)
		}
		holds(t, keys, list[1:])
		writeFile(t, d, "r/registry.0", file) // a copy of before
		_, err = registry.Import(ctx, keys, d, "r")
		must(t, err)
		holds(t, keys, list[1:])
		writeFile(t, d, "r/registry.0", registry.EncodeFile(10, list)) // the older release ran again
		if _, err = registry.Import(ctx, keys, d, "r"); !errors.Is(err, registry.ErrImport) {
			t.Fatal(err)
		}
	}
}

// One whole copy is enough, of two the newer counts.
func TestImportDamage(t *testing.T) {
	list := records(3)
	good, old := registry.EncodeFile(9, list), registry.EncodeFile(8, list[:2])
	bad := bytes.Clone(good)
	bad[100] ^= 1
	newer := append(format.AppendHeader(nil, format.Header{Kind: format.KindRegistry, Version: 2, MinReader: 2}), good[64:]...)
	for i, c := range []struct {
		files [][]byte
		err   error
	}{
		{[][]byte{good, nil}, nil}, {[][]byte{nil, good}, nil}, {[][]byte{bad, good}, nil}, {[][]byte{good, bad}, nil}, {[][]byte{good, old}, nil},
		{[][]byte{old, good}, nil}, {[][]byte{bad, nil}, format.ErrCorrupt}, {[][]byte{bad, bad[:70]}, format.ErrCorrupt}, {[][]byte{good, newer}, format.ErrNewer},
	} {
		d := older(t, c.files...)
		keys, err := registrytest.Open(d, "keys")
		must(t, err)
		n, err := registry.Import(ctx, keys, d, "r")
		if c.err != nil {
			if !errors.Is(err, c.err) {
				t.Errorf("case %d: %v, want %v", i, err, c.err)
			}
			continue
		}
		if n != len(list) || err != nil {
			t.Errorf("case %d: %d, %v", i, n, err)
		}
		holds(t, keys, list)
	}
	d := older(t, good)
	lock, err := d.Lock("r/registry.lock")
	must(t, err)
	defer lock.Close()
	keys, err := registrytest.Open(d, "keys")
	must(t, err)
	if _, err := registry.Import(ctx, keys, d, "r"); !errors.Is(err, disk.ErrLocked) {
		t.Fatal(err)
	}
	if n, err := registry.Import(ctx, keys, d, "absent"); n != 0 || err != nil {
		t.Fatal(n, err)
	}
	own, err := registrytest.Open(d, "own")
	must(t, err)
	r, err := registry.Open(ctx, own)
	must(t, err)
	must(t, r.Register(ctx, registry.Record{ID: uuid.New(), Name: "own"}))
	must(t, lock.Close())
	if _, err := registry.Import(ctx, own, d, "r"); !errors.Is(err, registry.ErrImport) {
		t.Fatal(err)
	}
}

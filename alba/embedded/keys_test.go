package embedded

import (
	"bytes"
	"errors"
	"testing"

	"openvstorage/alba/abm"
	"openvstorage/alba/nsm/userfn"
	"openvstorage/alba/object"
	"openvstorage/alba/preset"
	"openvstorage/backend"
	"openvstorage/internal/disk"
	"openvstorage/internal/disk/crashdisk"
	"openvstorage/internal/format"
)

func masterKey(b byte) []byte { return bytes.Repeat([]byte{b}, object.MasterKeySize) }

// sealing are options of a backend whose default preset seals with key 1.
func sealing(fs disk.FS, keys map[uint64][]byte) Options {
	o := options(fs)
	o.Preset.Scheme.Cipher, o.Preset.Scheme.Key = preset.CipherAES256GCM, 1
	o.Keys = keys
	return o
}

func openSealing(t *testing.T, fs disk.FS, keys map[uint64][]byte) *Backend {
	t.Helper()
	b, err := Open(ctx, sealing(fs, keys))
	must(t, err)
	return b
}

// checks are the numbers of which the ABM has a check value.
func checks(t *testing.T, b *Backend) (numbers []uint64) {
	t.Helper()
	list, err := b.abm.KeyChecks(ctx, userfn.Consistent)
	must(t, err)
	for _, c := range list {
		numbers = append(numbers, c.Number)
	}
	return numbers
}

// Another key under a number that is known ends the start, before anything is
// written with it. The right one opens everything, with others beside it; a number
// that nothing was sealed with may have another key next time.
func TestAnotherKeyIsRefused(t *testing.T) {
	fs := newDisk(t)
	b := openSealing(t, fs, map[uint64][]byte{1: masterKey(1), 2: masterKey(2)})
	fill(t, b, "n", 0, 8)
	if got := checks(t, b); len(got) != 1 || got[0] != 1 {
		t.Errorf("check values of keys %v; key 2 was not used", got)
	}
	must(t, b.Close())

	_, err := Open(ctx, sealing(fs, map[uint64][]byte{1: masterKey(9)}))
	if !errors.Is(err, ErrWrongKey) {
		t.Fatalf("another key: %v", err)
	}
	b = openSealing(t, fs, map[uint64][]byte{1: masterKey(1), 2: masterKey(3)})
	holds(t, b, "n", 8)
	p := *small()
	p.Name, p.Scheme.Cipher, p.Scheme.Key = "second", preset.CipherAES256GCM, 2
	must(t, b.CreatePreset(ctx, p, false))
	if got := checks(t, b); len(got) != 2 {
		t.Errorf("check values of keys %v, of 1 and 2 there are presets", got)
	}
	must(t, b.Close())
	if _, err = Open(ctx, sealing(fs, map[uint64][]byte{2: masterKey(2)})); !errors.Is(err, ErrWrongKey) {
		t.Errorf("another key of a preset that nobody has yet: %v", err)
	}
	// Without keys it starts, as ever.
	b = openSealing(t, fs, nil)
	if _, err := get(b, "n", 0); err == nil {
		t.Error("an object is read without its key")
	}
	must(t, b.Close())
}

// old makes a data directory as a release without check values left it.
func old(t *testing.T, key []byte, objects ...int) *crashdisk.FS {
	t.Helper()
	fs := newDisk(t)
	b := openSealing(t, fs, map[uint64][]byte{99: masterKey(99)})
	must(t, b.CreateNamespace(ctx, "empty"))
	must(t, b.CreateNamespace(ctx, "n"))
	oldPut(t, b, "n", key, objects...)
	if got := checks(t, b); len(got) != 0 {
		t.Fatalf("check values of keys %v", got)
	}
	must(t, b.Close())
	return fs
}

// oldPut puts objects with whatever key 1 is.
func oldPut(t *testing.T, b *Backend, namespace string, key []byte, objects ...int) {
	t.Helper()
	b.ring.keys[1] = key
	b.ring.setProven(1)
	for _, i := range objects {
		must(t, b.Namespace(namespace).Put(ctx, name(i), data(i)))
	}
}

// A key that has no check value is held against an object: one that is in its
// manifest, or one that needs disks.
func TestKeyOfOldDirectory(t *testing.T) {
	for what, objects := range map[string][]int{"inline": {0, 1, 2}, "on disks": {1, 2, 3}} {
		fs := old(t, masterKey(1), objects...)
		if _, err := Open(ctx, sealing(fs, map[uint64][]byte{1: masterKey(9)})); !errors.Is(err, ErrWrongKey) {
			t.Errorf("%s: another key: %v", what, err)
		}
		b := openSealing(t, fs, map[uint64][]byte{1: masterKey(1)})
		if got := checks(t, b); len(got) != 1 {
			t.Errorf("%s: check values of keys %v", what, got)
		}
		for _, i := range objects {
			if p, err := get(b, "n", i); err != nil || !bytes.Equal(p, data(i)) {
				t.Errorf("%s: object %d: %v", what, i, err)
			}
		}
		must(t, b.Close())
		if _, err := Open(ctx, sealing(fs, map[uint64][]byte{1: masterKey(9)})); !errors.Is(err, ErrWrongKey) {
			t.Errorf("%s: another key later: %v", what, err)
		}
	}
}

// While no object can be read nothing is sealed with a key that may be another.
func TestUnprovenKeyWaits(t *testing.T) {
	for _, right := range []bool{true, false} {
		fs := old(t, masterKey(1), 1, 2, 3)
		away := []string{"asd/0", "asd/1", "asd/2"}
		for _, dir := range away {
			must(t, fs.Rename("/data/"+dir, "/data/"+dir+".away"))
		}
		key := masterKey(1)
		if !right {
			key = masterKey(9)
		}
		b := openSealing(t, fs, map[uint64][]byte{1: key})
		if err := b.Namespace("n").Put(ctx, name(4), data(4)); !errors.Is(err, ErrUnproven) {
			t.Errorf("a put: %v", err)
		}
		for _, dir := range away {
			must(t, fs.Rename("/data/"+dir+".away", "/data/"+dir))
		}
		b.ReopenDisks(ctx)
		err := b.Namespace("n").Put(ctx, name(4), data(4))
		if right && err != nil || !right && !errors.Is(err, ErrWrongKey) {
			t.Errorf("right: %v; a put when the disks are back: %v", right, err)
		}
		must(t, b.Close())
	}
}

// A release before check values took any key: what either of two keys opens can be
// read with it, and the first to come is the one from then on.
func TestTwoKeysOfOldDirectory(t *testing.T) {
	fs := old(t, masterKey(1), 0, 1)
	b := openSealing(t, fs, map[uint64][]byte{99: masterKey(99)})
	must(t, b.CreateNamespace(ctx, "other"))
	oldPut(t, b, "other", masterKey(2), 2, 3)
	must(t, b.Close())
	b = openSealing(t, fs, map[uint64][]byte{1: masterKey(2)})
	if p, err := get(b, "other", 2); err != nil || !bytes.Equal(p, data(2)) {
		t.Error(err)
	}
	if _, err := get(b, "n", 0); !errors.Is(err, object.ErrSeal) || !errors.Is(err, backend.ErrCorrupt) {
		t.Errorf("an object of the other key: %v", err)
	}
	must(t, b.Close())
	if _, err := Open(ctx, sealing(fs, map[uint64][]byte{1: masterKey(1)})); !errors.Is(err, ErrWrongKey) {
		t.Errorf("the other key: %v", err)
	}
}

// A check value of a later kind is refused by name.
func TestNewerKeyCheck(t *testing.T) {
	fs := newDisk(t)
	b := openSealing(t, fs, nil)
	must(t, b.abm.PutKeyCheck(ctx, abm.KeyCheck{Number: 1, Kind: abm.KeyCheckV1 + 1}))
	must(t, b.Close())
	if _, err := Open(ctx, sealing(fs, map[uint64][]byte{1: masterKey(1)})); !errors.Is(err, format.ErrNewer) {
		t.Error(err)
	}
}

package arakoon

import (
	"context"
	"errors"
	"path"
	"strings"
	"testing"

	"openvstorage/arakoon/state"
	"openvstorage/internal/disk"
	"openvstorage/internal/disk/crashdisk"
)

// A manifest of the state that was cut or zeroed looks like one that ended there:
// the state would begin anew beside tables that it does not know, and remove them.
// The log knows how far the state was, and nothing is changed.
func TestStateBehindTheLog(t *testing.T) {
	ctx := context.Background()
	d := crashdisk.New()
	open := func(fs disk.FS) (*Node, error) { return Open(testOptions(fs)) }
	n, err := open(d)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := n.Do(ctx, new(Sequence).Set([]byte("k"), []byte("v"))); err != nil {
		t.Fatal(err)
	}
	dir := path.Join(n.opt.Dir, "state")
	if err := n.Close(); err != nil {
		t.Fatal(err)
	}
	whole := d.Kill()
	names, err := d.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	damaged := 0
	for _, name := range names {
		if !strings.HasPrefix(name, "MANIFEST-") {
			continue
		}
		f, err := d.OpenFile(path.Join(dir, name), disk.Write, 0)
		if err != nil {
			t.Fatal(err)
		}
		size, err := f.Size()
		if err == nil && size > 64 {
			damaged++
			_, err = f.WriteAt(make([]byte, size-64), 64)
		}
		if err = errors.Join(err, f.Close()); err != nil {
			t.Fatal(err)
		}
	}
	for range 2 {
		if _, err := open(d); damaged == 0 || !errors.Is(err, state.ErrDamaged) || !strings.Contains(err.Error(), dir) {
			t.Fatalf("with %d damaged manifests: %v", damaged, err)
		}
	}
	for _, name := range names {
		if strings.HasPrefix(name, "MANIFEST-") {
			if err := d.Copy(path.Join(dir, name), whole, path.Join(dir, name)); err != nil {
				t.Fatal(err)
			}
		}
	}
	if n, err = open(d); err != nil {
		t.Fatal(err)
	}
	if v, err := n.Get(ctx, Consistent, []byte("k")); err != nil || string(v) != "v" {
		t.Errorf("%q, %v", v, err)
	}
	if err := n.Close(); err != nil {
		t.Fatal(err)
	}
}

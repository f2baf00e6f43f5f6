package fusefs_test

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"openvstorage/fusefs/filetree/treetest"
	"openvstorage/fusefs/memtest"
)

// A clone's file that is copied onto once more gets what the source has now, though
// nothing was written to it since it was cloned.
func TestCopyOntoClone(t *testing.T) {
	keys := treetest.New()
	pool := memtest.New(keys)
	remount(t, pool, keys, func(dir string) {
		source, clone := filepath.Join(dir, "a.raw"), filepath.Join(dir, "b.raw")
		copyAll := func(length int) {
			t.Helper()
			a, err := os.Open(source)
			check(t, "open", err, 0)
			defer a.Close()
			b, err := os.OpenFile(clone, os.O_RDWR|os.O_CREATE, 0o600)
			check(t, "open", err, 0)
			defer b.Close()
			for in, out := int64(0), int64(0); length > 0; {
				n, err := unix.CopyFileRange(int(a.Fd()), &in, int(b.Fd()), &out, length, 0)
				if err != nil || n == 0 {
					t.Fatal(n, err)
				}
				length -= n
			}
		}
		for round := range 3 {
			want := bytes.Repeat([]byte{byte(round + 1)}, 64<<10)
			f, err := os.OpenFile(source, os.O_RDWR|os.O_CREATE, 0o600)
			check(t, "open", err, 0)
			_, err = f.WriteAt(want, 0)
			check(t, "write", err, 0)
			check(t, "close", f.Close(), 0)
			copyAll(len(want))
			if got, err := os.ReadFile(clone); err != nil || !bytes.Equal(got, want) {
				t.Errorf("round %d: the copy has %d, %v", round, got[0], err)
			}
		}
		if pool.Clones() != 1 {
			t.Errorf("%d clones", pool.Clones())
		}
	})
}

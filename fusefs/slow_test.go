package fusefs_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"openvstorage/fusefs/filetree"
	"openvstorage/fusefs/filetree/treetest"
	"openvstorage/fusefs/memtest"
	"openvstorage/internal/gate"
)

// While a store of an attribute, of the time of a last close or of a content takes
// long, all files can be looked up and looked at, that one too; it shows what is
// kept. vDisks can be opened, read and written.
func TestSlowStore(t *testing.T) {
	keys := treetest.New()
	pool := memtest.New(keys)
	remount(t, pool, keys, func(dir string) {
		at := func(name string) string { return filepath.Join(dir, name) }
		for _, name := range []string{"a.raw", "b.raw", "new.raw", "small", "other"} {
			check(t, "write", os.WriteFile(at(name), make([]byte, 4096), 0o600), 0)
		}
		check(t, "empty it", os.Truncate(at("new.raw"), 0), 0)
		written := func(name string) *os.File {
			f, err := os.OpenFile(at(name), os.O_RDWR, 0)
			check(t, "open", err, 0)
			_, err = f.WriteAt([]byte("written"), 4096)
			check(t, "write", err, 0)
			return f
		}
		last, small := written("a.raw"), written("small")
		for _, slow := range []struct {
			what, name string
			do         func() error
		}{
			{"chmod", "a.raw", func() error { return os.Chmod(at("a.raw"), 0o640) }},
			{"chmod", "new.raw", func() error { return os.Chmod(at("new.raw"), 0o640) }},
			{"chmod", "small", func() error { return os.Chmod(at("small"), 0o640) }},
			{"last close", "a.raw", last.Close},
			{"fsync", "small", small.Sync},
		} {
			before := statx(t, at(slow.name))
			g := gate.New()
			defer g.Open()
			keys.Hold(g.Hold)
			done, looked := make(chan error, 1), make(chan struct{})
			go func() { done <- slow.do() }()
			if err := g.Arrived(t.Context(), 1); err != nil {
				t.Fatal(err)
			}
			go func() {
				defer close(looked)
				for _, name := range []string{"a.raw", "b.raw", "new.raw", "small", "other"} {
					now := statx(t, at(name))
					if name == slow.name && (now.Mode != before.Mode || now.Size != before.Size) {
						t.Errorf("%s of %s: it shows mode %o, %d bytes before they are kept", slow.what, name, now.Mode, now.Size)
					}
					// The kernel looks it up again for O_EXCL.
					_, err := os.OpenFile(at(name), os.O_CREATE|os.O_EXCL|os.O_RDWR, 0o600)
					check(t, "lookup of "+name, err, syscall.EEXIST)
				}
				for _, name := range []string{"a.raw", "b.raw"} {
					f, err := os.OpenFile(at(name), os.O_RDWR, 0)
					check(t, "open", err, 0)
					_, err = f.ReadAt(make([]byte, 4096), 0)
					check(t, "read", err, 0)
					if name != slow.name { // the kernel itself keeps a write from a chmod
						_, err = f.WriteAt([]byte("also"), 0)
						check(t, "write", err, 0)
					}
					defer f.Close()
				}
			}()
			select {
			case <-looked:
			case <-time.After(20 * time.Second):
				t.Fatalf("%s of %s: others wait for its store", slow.what, slow.name)
			}
			keys.Hold(nil)
			g.Open()
			check(t, slow.what, <-done, 0)
			if slow.what == "chmod" {
				if now := statx(t, at(slow.name)); now.Mode&0o777 != 0o640 {
					t.Errorf("chmod of %s: its mode is %o after that", slow.name, now.Mode)
				}
			}
		}
		check(t, "close", small.Close(), 0)

		keys.Fail(filetree.ErrNotWritten)
		check(t, "chmod that is not kept", os.Chmod(at("a.raw"), 0o444), syscall.EIO)
		keys.Fail(nil)
		if now := statx(t, at("a.raw")); now.Mode&0o777 != 0o640 {
			t.Errorf("after a chmod that failed its mode is %o", now.Mode)
		}
	})
}

// statx is what the file server says of a file, not what the kernel remembers.
func statx(t *testing.T, name string) (stx unix.Statx_t) {
	t.Helper()
	check(t, "stat of "+name, unix.Statx(unix.AT_FDCWD, name, unix.AT_STATX_FORCE_SYNC, unix.STATX_ALL, &stx), 0)
	return stx
}

// What is deleted while the time of its last close is being kept leaves nothing
// behind, whichever comes first.
func TestDeletedWhileKept(t *testing.T) {
	keys := treetest.New()
	pool := memtest.New(keys)
	remount(t, pool, keys, func(dir string) {
		name := filepath.Join(dir, "a.raw")
		check(t, "write", os.WriteFile(name, make([]byte, 4096), 0o600), 0)
		f, err := os.OpenFile(name, os.O_RDWR, 0)
		check(t, "open", err, 0)
		_, err = f.WriteAt([]byte("written"), 0)
		check(t, "write", err, 0)
		g := gate.New()
		defer g.Open()
		keys.Hold(g.Hold)
		check(t, "close", f.Close(), 0)
		if err := g.Arrived(t.Context(), 1); err != nil {
			t.Fatal(err)
		}
		deleted := make(chan error, 1)
		go func() { deleted <- os.Remove(name) }()
		g.Open()
		check(t, "unlink", <-deleted, 0)
	})
	for key := range keys.All() {
		t.Errorf("%q is left", key)
	}
	if _, err := pool.Info(context.Background(), "a"); !errors.Is(err, os.ErrNotExist) {
		t.Error(err)
	}
}

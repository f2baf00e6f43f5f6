package fusefs_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"syscall"
	"testing"
	"time"

	gofs "github.com/hanwen/go-fuse/v2/fs"
	"github.com/hanwen/go-fuse/v2/fuse"

	"openvstorage/fusefs/filetree"
	"openvstorage/internal/gate"
)

// Whoever makes, empties or deletes a vDisk by its file, and is killed at any of the
// stores that this takes, goes at once. The file is whole, as it was or as it is to be;
// nothing of the other is left in the tree soon after, and after a restart nothing.
func TestKilledInStores(t *testing.T) {
	set := func(n interface {
		Setattr(context.Context, gofs.FileHandle, *fuse.SetAttrIn, *fuse.AttrOut) syscall.Errno
	}, ctx context.Context, size uint64) syscall.Errno {
		in := fuse.SetAttrIn{SetAttrInCommon: fuse.SetAttrInCommon{Valid: fuse.FATTR_SIZE, Size: size}}
		return n.Setattr(ctx, nil, &in, &fuse.AttrOut{})
	}
	for what, c := range map[string]struct {
		disk   bool // the file is a vDisk before
		stores int  // at least
		do     func(ctx context.Context, k *kernel) syscall.Errno
		after  string // disk, empty or gone: what it is when nobody is killed
	}{
		"first write": {false, 2, func(ctx context.Context, k *kernel) syscall.Errno {
			_, e := k.Empty().Write(ctx, nil, []byte("12345"), 0)
			return e
		}, "disk"},
		"truncate to more":    {false, 2, func(ctx context.Context, k *kernel) syscall.Errno { return set(k.Empty(), ctx, 4096) }, "disk"},
		"truncate to nothing": {true, 2, func(ctx context.Context, k *kernel) syscall.Errno { return set(k.Disk("a"), ctx, 0) }, "empty"},
		"unlink":              {true, 1, func(ctx context.Context, k *kernel) syscall.Errno { return k.Root().Unlink(ctx, "a.raw") }, "gone"},
	} {
		for nth := range 5 {
			t.Run(fmt.Sprint(what, nth), func(t *testing.T) {
				k := newKernel(t)
				f := k.create(1, "a.raw")
				k.Raw.SetAttr(nil, &fuse.SetAttrIn{SetAttrInCommon: fuse.SetAttrInCommon{InHeader: header(f.NodeId), Valid: fuse.FATTR_MODE, Mode: 0o640}}, &fuse.AttrOut{})
				if c.disk {
					if s := k.write(f.NodeId, f.Fh, []byte("12345"), 0); !s.Ok() {
						t.Fatal(s)
					}
				}
				if c.after == "gone" {
					k.Raw.Release(nil, &fuse.ReleaseIn{InHeader: header(f.NodeId), Fh: f.Fh})
				}
				g, stores := gate.New(), 0
				k.keys.Hold(func(ctx context.Context) error {
					if stores++; stores == nth+1 {
						return g.Hold(ctx)
					}
					return nil
				})
				ctx, cancel := context.WithCancel(t.Context())
				defer cancel()
				ended := make(chan syscall.Errno, 1)
				go func() { ended <- c.do(ctx, k) }()
				arrived := make(chan error, 1)
				go func() { arrived <- g.Arrived(t.Context(), 1) }()
				select {
				case <-arrived:
					cancel()
					select {
					case <-ended:
					case <-time.After(20 * time.Second):
						t.Fatal("it goes on waiting")
					}
				case e := <-ended: // fewer stores
					if e != 0 || nth < c.stores {
						t.Fatalf("%d stores: %v", stores, e)
					}
				}
				k.keys.Hold(nil)
				is := func() string {
					var out fuse.EntryOut
					h := header(1)
					switch s := k.Raw.Lookup(nil, &h, "a.raw", &out); {
					case s == fuse.ENOENT:
						return "gone"
					case !s.Ok():
						t.Fatal(s)
					case out.Mode&0o777 != 0o640:
						t.Errorf("mode %o", out.Mode&0o777)
					case out.Size == 0:
						return "empty"
					}
					return "disk"
				}
				before := "empty"
				if c.disk {
					before = "disk"
				}
				now := is()
				if now != before && now != c.after {
					t.Errorf("it is %s", now)
				}
				if now != "gone" && c.after != "gone" { // it can be used, also by whoever has it open
					if s := k.write(f.NodeId, f.Fh, []byte("again"), 8192); !s.Ok() {
						t.Errorf("write: %v", s)
					}
					if now = is(); now != "disk" {
						t.Errorf("written to, it is %s", now)
					}
				}
				check(t, "beat", k.Pay(t.Context()), 0)
				want := 0 // keys: the entry of an empty file, or attributes of a vDisk
				if now != "gone" {
					want = 1
				}
				if all := k.keys.All(); len(all) != want {
					t.Errorf("%s: %d keys are kept", now, len(all))
				}
				again := newKernelOf(t, k.pool, k.keys)
				k = again
				if then := is(); then != now {
					t.Errorf("after a restart it is %s, it was %s", then, now)
				}
			})
		}
	}
}

// A store that fails after the vDisk is there fails nobody's write, and is made up for.
func TestStoreFailsBehindMaking(t *testing.T) {
	k := newKernel(t)
	f := k.create(1, "a.raw")
	stores := 0
	k.keys.Hold(func(context.Context) error {
		if stores++; stores == 2 {
			return fmt.Errorf("no room: %w", filetree.ErrNotWritten)
		}
		return nil
	})
	if s := k.write(f.NodeId, f.Fh, []byte("12345"), 0); !s.Ok() {
		t.Errorf("write: %v", s)
	}
	check(t, "beat", k.Pay(t.Context()), 0)
	for key := range k.keys.All() {
		if !strings.HasPrefix(key, "files/d/") {
			t.Errorf("key %q is left", key)
		}
	}
	// One that fails before leaves an empty file, and no vDisk.
	f = k.create(1, "b.raw")
	k.keys.Hold(func(context.Context) error { return errors.Join(filetree.ErrNotWritten, syscall.ENOSPC) })
	if s := k.write(f.NodeId, f.Fh, []byte("12345"), 0); s != fuse.Status(syscall.ENOSPC) {
		t.Errorf("write: %v", s)
	}
	k.keys.Hold(nil)
	if _, err := k.pool.Info(t.Context(), "b"); err == nil {
		t.Error("the vDisk is made")
	}
}

package fusefs_test

import (
	"testing"

	"github.com/hanwen/go-fuse/v2/fuse"

	"openvstorage/fusefs"
)

// The node of a directory whose name something else took goes when the kernel has
// forgotten it, whatever took the name: names came and went a hundred times, and there
// are as many nodes as things.
func TestNodesOfNamesTaken(t *testing.T) {
	for what, take := range map[string]func(k *kernel){
		"a file": func(k *kernel) {
			f := k.create(1, "d")
			k.Raw.Release(nil, &fuse.ReleaseIn{InHeader: header(f.NodeId), Fh: f.Fh})
			k.Raw.Forget(f.NodeId, 1)
		},
		"a file that another door made": func(k *kernel) { // it is looked up
			f := k.create(1, "other")
			k.Raw.Release(nil, &fuse.ReleaseIn{InHeader: header(f.NodeId), Fh: f.Fh})
			if s := k.Raw.Rename(nil, &fuse.RenameIn{InHeader: header(1), Newdir: 1}, "other", "d"); !s.Ok() {
				t.Fatal(s)
			}
			k.lookup(1, "d")
			k.Raw.Forget(f.NodeId, 2)
		},
		"a directory": func(k *kernel) {
			var out fuse.EntryOut
			if s := k.Raw.Mkdir(nil, &fuse.MkdirIn{InHeader: header(1), Mode: 0o755}, "d", &out); !s.Ok() {
				t.Fatal(s)
			}
			k.Raw.Forget(out.NodeId, 1)
		},
	} {
		t.Run(what, func(t *testing.T) {
			k := newKernel(t)
			ctx := t.Context()
			for range 100 {
				check(t, "create", k.pool.Create(ctx, "d/x", 4096), 0)
				d := k.lookup(1, "d")
				x := k.lookup(d.NodeId, "x.raw")
				check(t, "delete", k.pool.Delete(ctx, "d/x", func(fusefs.Info) error { return nil }), 0)
				take(k)
				k.Raw.Forget(x.NodeId, 1)
				k.Raw.Forget(d.NodeId, 1)
				check(t, "prune", k.Prune(ctx), 0)
				h := header(1)
				if what == "a directory" {
					if s := k.Raw.Rmdir(nil, &h, "d"); !s.Ok() {
						t.Fatal(s)
					}
				} else {
					if n := k.Nodes(); n != 1 {
						t.Fatalf("%d nodes of one file", n)
					}
					if s := k.Raw.Unlink(nil, &h, "d"); !s.Ok() {
						t.Fatal(s)
					}
				}
				check(t, "prune", k.Prune(ctx), 0)
				if n := k.Nodes(); n != 0 {
					t.Fatalf("%d nodes of nothing", n)
				}
			}
		})
	}
}

// Nor is a node left of a directory that a vDisk's file took the name of.
func TestNodesOfNamesTakenByDisks(t *testing.T) {
	k := newKernel(t)
	ctx := t.Context()
	check(t, "create", k.pool.Create(ctx, "d.raw/x", 4096), 0) // of an earlier release
	d := k.lookup(1, "d.raw")
	check(t, "delete", k.pool.Delete(ctx, "d.raw/x", func(fusefs.Info) error { return nil }), 0)
	check(t, "create", k.pool.Create(ctx, "d", 4096), 0)
	if again := k.lookup(1, "d.raw"); again.NodeId == d.NodeId {
		t.Fatal("a file is a directory")
	}
	k.Raw.Forget(d.NodeId, 1)
	check(t, "prune", k.Prune(ctx), 0)
	if n := k.Nodes(); n != 1 {
		t.Errorf("%d nodes", n)
	}
}

package fusefs_test

import (
	"context"
	"runtime"
	"slices"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/hanwen/go-fuse/v2/fuse"

	"openvstorage/fusefs"
	"openvstorage/fusefs/filetree/treetest"
	"openvstorage/fusefs/memtest"
)

// kernel does what the kernel does, one request at a time.
type kernel struct {
	t *testing.T
	*fusefs.Bridge
	pool *memtest.Pool
	keys *treetest.Keys
}

func newKernel(t *testing.T) *kernel {
	t.Helper()
	keys := treetest.New()
	pool := memtest.New(keys)
	b, err := fusefs.NewBridge(t.Context(), pool, keys)
	check(t, "open", err, 0)
	return &kernel{t, b, pool, keys}
}

func header(node uint64) fuse.InHeader { return fuse.InHeader{NodeId: node} }

// lookup returns what a name leads to.
func (k *kernel) lookup(parent uint64, name string) (out fuse.EntryOut) {
	k.t.Helper()
	h := header(parent)
	if s := k.Raw.Lookup(nil, &h, name, &out); !s.Ok() {
		k.t.Fatalf("lookup of %s: %v", name, s)
	}
	return out
}

// create makes a file and leaves it open.
func (k *kernel) create(parent uint64, name string) (out fuse.CreateOut) {
	k.t.Helper()
	in := fuse.CreateIn{InHeader: header(parent), Flags: syscall.O_RDWR, Mode: 0o600}
	if s := k.Raw.Create(nil, &in, name, &out); !s.Ok() {
		k.t.Fatalf("create %s: %v", name, s)
	}
	return out
}

func (k *kernel) write(node, fh uint64, data []byte, off uint64) fuse.Status {
	in := fuse.WriteIn{InHeader: header(node), Fh: fh, Offset: off, Size: uint32(len(data))}
	_, s := k.Raw.Write(nil, &in, data)
	return s
}

// raced looks a name up that the kernel knows, and forgets it meanwhile: it knows it
// by the second lookup then.
func (k *kernel) raced(name string) uint64 {
	k.t.Helper()
	node := k.lookup(1, name).NodeId
	k.After = func() { k.Raw.Forget(node, 1) }
	if again := k.lookup(1, name).NodeId; again != node {
		k.t.Logf("%s: another node", name)
		node = again
	}
	return node
}

// A node that the kernel forgets while a lookup finds it is the one that it has, and
// the only one of what it is the node of.
func TestForgottenWhileLookedUp(t *testing.T) {
	k := newKernel(t)
	ctx := t.Context()
	check(t, "create", k.pool.Create(ctx, "a", 4096), 0)
	info, err := k.pool.Info(ctx, "a")
	check(t, "info", err, 0)
	node := k.raced("a.raw")
	if again := k.lookup(1, "a.raw"); again.NodeId != node {
		t.Errorf("a.raw: node %d, and then %d", node, again.NodeId)
	}
	check(t, "changed", k.Changed(ctx, info.ID), 0)
	if !slices.Equal(k.Told, []uint64{node}) {
		t.Errorf("a change is told of nodes %v: the kernel has %d", k.Told, node)
	}

	small := k.create(1, "small")
	k.Raw.Release(nil, &fuse.ReleaseIn{InHeader: header(small.NodeId), Fh: small.Fh})
	k.Raw.Forget(small.NodeId, 1)
	node = k.raced("small")
	var open fuse.OpenOut
	if s := k.Raw.Open(nil, &fuse.OpenIn{InHeader: header(node), Flags: syscall.O_RDWR}, &open); !s.Ok() {
		t.Fatal(s)
	}
	if s := k.write(node, open.Fh, []byte("12345"), 0); !s.Ok() {
		t.Fatal(s)
	}
	if again := k.lookup(1, "small"); again.NodeId != node || again.Size != 5 {
		t.Errorf("small: node %d, and then %d of %d bytes", node, again.NodeId, again.Size)
	}

	empty := k.create(1, "e.raw")
	k.Raw.Release(nil, &fuse.ReleaseIn{InHeader: header(empty.NodeId), Fh: empty.Fh})
	k.Raw.Forget(empty.NodeId, 1)
	node = k.raced("e.raw")
	if again := k.lookup(1, "e.raw"); again.NodeId != node {
		t.Errorf("e.raw: node %d, and then %d", node, again.NodeId)
	}

	check(t, "create", k.pool.Create(ctx, "d/x", 4096), 0)
	node = k.raced("d")
	if s := k.Raw.Rename(nil, &fuse.RenameIn{InHeader: header(1), Newdir: 1}, "d", "moved"); !s.Ok() {
		t.Fatal(s)
	}
	k.lookup(node, "x.raw")
}

// Nodes go with what they are nodes of, though the kernel have them still.
func TestNodesGo(t *testing.T) {
	k := newKernel(t)
	ctx := t.Context()
	check(t, "create", k.pool.Create(ctx, "a", 4096), 0)
	check(t, "create", k.pool.Create(ctx, "d/x", 4096), 0)
	a, d := k.lookup(1, "a.raw"), k.lookup(1, "d")
	x := k.lookup(d.NodeId, "x.raw")
	small, empty := k.create(1, "small"), k.create(1, "e.raw")
	k.Raw.Release(nil, &fuse.ReleaseIn{InHeader: header(empty.NodeId), Fh: empty.Fh})
	check(t, "prune", k.Prune(ctx), 0)
	if n := k.Nodes(); n != 5 {
		t.Fatalf("%d nodes", n)
	}
	for _, name := range []string{"small", "e.raw"} {
		h := header(1)
		if s := k.Raw.Unlink(nil, &h, name); !s.Ok() {
			t.Fatal(s)
		}
	}
	for _, name := range []string{"a", "d/x"} {
		check(t, "delete", k.pool.Delete(ctx, name, func(fusefs.Info) error { return nil }), 0)
	}
	check(t, "prune", k.Prune(ctx), 0)
	if n := k.Nodes(); n != 1 {
		t.Errorf("%d nodes, where the kernel has a directory that may come again", n)
	}
	if s := k.write(small.NodeId, small.Fh, []byte("still open"), 0); !s.Ok() {
		t.Error(s)
	}
	for _, node := range []uint64{x.NodeId, d.NodeId, a.NodeId} {
		k.Raw.Forget(node, 1)
	}
	check(t, "prune", k.Prune(ctx), 0)
	if n := k.Nodes(); n != 0 {
		t.Errorf("%d nodes are left", n)
	}
}

// Who looks a file up while it gets its vDisk, or loses it, finds that file: there is
// no second one of it.
func TestLookedUpWhileMade(t *testing.T) {
	k := newKernel(t)
	f := k.create(1, "a.raw")
	during := func(what string, do func()) {
		t.Helper()
		looked := 0
		k.keys.Hold(func(context.Context) error { // the vDisk is there, or gone, and the tree does not know yet
			if out := k.lookup(1, "a.raw"); out.NodeId != f.NodeId {
				t.Errorf("looked up while it is %s: node %d, it is %d", what, out.NodeId, f.NodeId)
			}
			looked++
			return nil
		})
		do()
		k.keys.Hold(nil)
		if looked == 0 {
			t.Errorf("%s: nothing is kept", what)
		}
	}
	during("made", func() {
		if s := k.write(f.NodeId, f.Fh, []byte("12345"), 0); !s.Ok() {
			t.Fatal(s)
		}
	})
	during("emptied", func() {
		in := fuse.SetAttrIn{SetAttrInCommon: fuse.SetAttrInCommon{InHeader: header(f.NodeId), Valid: fuse.FATTR_SIZE}}
		if s := k.Raw.SetAttr(nil, &in, &fuse.AttrOut{}); !s.Ok() {
			t.Fatal(s)
		}
	})
	if out := k.lookup(1, "a.raw"); out.NodeId != f.NodeId || out.Size != 0 {
		t.Errorf("emptied: %+v", out.Attr)
	}
}

// hookContext calls hook when it is asked for its end for the first time.
type hookContext struct {
	context.Context
	once sync.Once
	hook func()
}

func (c *hookContext) Done() <-chan struct{} {
	c.once.Do(c.hook)
	return c.Context.Done()
}

// Of two first writes to an empty file one waits for the backend: the other one, which
// had begun before, ends when it is killed.
func TestFirstWriteKilled(t *testing.T) {
	for name, do := range map[string]func(ctx context.Context, k *kernel) syscall.Errno{
		"write": func(ctx context.Context, k *kernel) syscall.Errno {
			_, e := k.Empty().Write(ctx, nil, []byte("12345"), 0)
			return e
		},
		"fallocate": func(ctx context.Context, k *kernel) syscall.Errno {
			return k.Empty().Allocate(ctx, nil, 0, 4096, 0)
		},
	} {
		t.Run(name, func(t *testing.T) {
			k := newKernel(t)
			k.create(1, "a.raw")
			n := k.Empty()
			alone := make(chan func(), 1)
			ctx, cancel := context.WithCancel(t.Context())
			killed := &hookContext{Context: ctx, hook: func() {
				go func() {
					done, err := n.Become(t.Context())
					check(t, "become", err, 0)
					alone <- done
				}()
				for !n.Becoming() {
					runtime.Gosched()
				}
			}}
			ended := make(chan syscall.Errno, 1)
			go func() { ended <- do(killed, k) }()
			done := <-alone
			defer done()
			cancel()
			select {
			case e := <-ended:
				check(t, name, e, syscall.EINTR)
			case <-time.After(20 * time.Second):
				t.Error("it goes on waiting")
			}
		})
	}
}

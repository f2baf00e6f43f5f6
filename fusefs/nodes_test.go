package fusefs_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/hanwen/go-fuse/v2/fuse"

	"openvstorage/device"
	"openvstorage/fusefs"
	"openvstorage/fusefs/filetree/treetest"
	"openvstorage/fusefs/memtest"
	"openvstorage/internal/gate"
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
	return newKernelOf(t, memtest.New(keys), keys)
}

func newKernelOf(t *testing.T, pool *memtest.Pool, keys *treetest.Keys) *kernel {
	t.Helper()
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

// Whoever looks a file up while it gets its vDisk, or loses it, finds that file: there is
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

// hookContext calls hook when it is asked for its end, for the first time after skip
// others.
type hookContext struct {
	context.Context
	skip  int32
	asked atomic.Int32
	hook  func()
}

func (c *hookContext) Done() <-chan struct{} {
	if c.asked.Add(1) == c.skip+1 {
		c.hook()
	}
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

// Whoever truncates a small file that somebody else is storing meanwhile ends when he is
// killed.
func TestTruncateKilled(t *testing.T) {
	k := newKernel(t)
	f := k.create(1, "small")
	if s := k.write(f.NodeId, f.Fh, []byte("12345"), 0); !s.Ok() {
		t.Fatal(s)
	}
	k.Raw.Release(nil, &fuse.ReleaseIn{InHeader: header(f.NodeId), Fh: f.Fh})
	g := gate.New()
	defer g.Open()
	k.keys.Hold(g.Hold)
	n := k.File()
	set := func(ctx context.Context, valid uint32) syscall.Errno {
		in := fuse.SetAttrIn{SetAttrInCommon: fuse.SetAttrInCommon{InHeader: header(f.NodeId), Valid: valid, Size: 1, Mode: 0o640}}
		return n.Setattr(ctx, nil, &in, &fuse.AttrOut{})
	}
	ctx, cancel := context.WithCancel(t.Context())
	truncated, changed := make(chan syscall.Errno, 1), make(chan syscall.Errno, 1)
	// It looks at its context for the file's lock, and then, with that, to read it.
	looks := &hookContext{Context: ctx, skip: 1, hook: func() {
		waits := make(chan struct{})
		chmod := &hookContext{Context: t.Context(), hook: func() { close(waits) }}
		go func() { changed <- set(chmod, fuse.FATTR_MODE) }()
		<-waits
	}}
	go func() { truncated <- set(looks, fuse.FATTR_SIZE) }()
	check(t, "store", g.Arrived(t.Context(), 1), 0)
	cancel()
	select {
	case <-truncated:
	case <-time.After(20 * time.Second):
		t.Error("it goes on waiting")
	}
	g.Open()
	if e := <-changed; e != 0 {
		t.Error(e)
	}
}

// The times of other files are stored even if one file is being changed for long.
func TestTimesKeptBesideWaits(t *testing.T) {
	k := newKernel(t)
	for _, name := range []string{"a", "b"} {
		check(t, "create", k.pool.Create(t.Context(), name, 4096), 0)
		k.lookup(1, name+".raw")
	}
	done, err := k.Disk("a").Become(t.Context())
	check(t, "become", err, 0)
	defer done()
	check(t, "write", k.pool.Get("b").Write(t.Context(), []device.Span{{Data: make([]byte, 4096)}}), 0)
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	check(t, "keep", k.Beat(ctx), 0)
	if len(k.keys.All()) != 1 {
		t.Errorf("kept: %d", len(k.keys.All()))
	}
}

// Whoever tells of a change while the kernel writes pages back, which waits, can give up;
// and whoever tells meanwhile is told that the kernel has heard of it since.
func TestChangedGivenUp(t *testing.T) {
	k := newKernel(t)
	check(t, "create", k.pool.Create(t.Context(), "a", 4096), 0)
	node := k.lookup(1, "a.raw").NodeId
	info, err := k.pool.Info(t.Context(), "a")
	check(t, "info", err, 0)
	g := gate.New()
	defer g.Open()
	k.Hold = g
	ctx, cancel := context.WithCancel(t.Context())
	first, second := make(chan error, 1), make(chan error, 1)
	go func() { first <- k.Changed(ctx, info.ID) }()
	check(t, "notice", g.Arrived(t.Context(), 1), 0)
	cancel()
	if err := <-first; !errors.Is(err, context.Canceled) {
		t.Errorf("given up: %v", err)
	}
	if err := k.Changed(ctx, info.ID); !errors.Is(err, context.Canceled) {
		t.Errorf("a caller whose context has ended: %v", err)
	}
	go func() { second <- k.Changed(t.Context(), info.ID) }()
	g.Open()
	check(t, "changed", <-second, 0)
	if !slices.Equal(k.Told, []uint64{node, node}) && !slices.Equal(k.Told, []uint64{node, node, node}) {
		t.Errorf("told %v", k.Told)
	}
}

// A change of a vDisk whose file nobody has looked up, though somebody came upon it, is
// told to nobody.
func TestChangedNotLookedUp(t *testing.T) {
	k := newKernel(t)
	check(t, "create", k.pool.Create(t.Context(), "a", 4096), 0)
	check(t, "create", k.pool.Create(t.Context(), "b", 4096), 0)
	k.lookup(1, "a.raw")
	if s := k.Raw.Rename(nil, &fuse.RenameIn{InHeader: header(1), Newdir: 1}, "a.raw", "b.raw"); s != fuse.Status(syscall.EEXIST) {
		t.Errorf("rename onto a vDisk: %v", s)
	}
	info, err := k.pool.Info(t.Context(), "b")
	check(t, "info", err, 0)
	check(t, "changed", k.Changed(t.Context(), info.ID), 0)
	if len(k.Told) != 0 {
		t.Errorf("told %v", k.Told)
	}
}

// A vDisk that has the name of one that is gone is found by whoever opens it, though
// the kernel remember the other one for a moment.
func TestOpenOfNameGivenAnew(t *testing.T) {
	dir, pool := mount(t)
	name := filepath.Join(dir, "a.raw")
	for i := range 5 {
		check(t, "create", pool.Create(t.Context(), "a", 4096), 0)
		check(t, "write", pool.Get("a").Write(t.Context(), []device.Span{{Data: []byte{byte('0' + i)}}}), 0)
		f, err := os.Open(name)
		check(t, "open", err, 0)
		b := make([]byte, 1)
		_, err = f.ReadAt(b, 0)
		check(t, "read", err, 0)
		if b[0] != byte('0'+i) {
			t.Errorf("it is %s", b)
		}
		check(t, "close", f.Close(), 0)
		for { // the kernel tells of the close after it
			err := pool.Delete(t.Context(), "a", func(fusefs.Info) error { return nil })
			if err == nil {
				break
			}
			if !errors.Is(err, syscall.EBUSY) {
				t.Fatal(err)
			}
			runtime.Gosched()
		}
	}
	// What is done by name finds the one that has it, too.
	check(t, "create", pool.Create(t.Context(), "a", 4096), 0)
	statx(t, name)
	check(t, "delete", pool.Delete(t.Context(), "a", func(fusefs.Info) error { return nil }), 0)
	check(t, "create", pool.Create(t.Context(), "a", 8192), 0)
	check(t, "chmod", os.Chmod(name, 0o640), 0)
	if now := statx(t, name); now.Size != 8192 || now.Mode&0o777 != 0o640 {
		t.Errorf("changed by its name: %d bytes, mode %o", now.Size, now.Mode)
	}
	check(t, "delete", pool.Delete(t.Context(), "a", func(fusefs.Info) error { return nil }), 0)
	_, err := os.Open(name)
	check(t, "open of what is gone", err, syscall.ENOENT)
}

// Whoever changes the mode of a file by its name while others empty it changes that
// file: its vDisk is gone by then, and the file is not.
func TestChmodBesideEmptying(t *testing.T) {
	at := 0
	for ; chmodBesideEmptying(t, at); at++ {
	}
	if at == 0 {
		t.Error("an emptying stored nothing")
	}
}

// chmodBesideEmptying begins to change the mode in one of the stores of an emptying. It
// reports whether there are so many.
func chmodBesideEmptying(t *testing.T, at int) bool {
	k := newKernel(t)
	f := k.create(1, "a.raw")
	if s := k.write(f.NodeId, f.Fh, []byte("12345"), 0); !s.Ok() {
		t.Fatal(s)
	}
	var stores atomic.Int32
	changed := make(chan fuse.Status, 1)
	k.keys.Hold(func(context.Context) error {
		if int(stores.Add(1)) != at+1 {
			return nil
		}
		go func() {
			in := fuse.SetAttrIn{SetAttrInCommon: fuse.SetAttrInCommon{InHeader: header(f.NodeId), Valid: fuse.FATTR_MODE, Mode: 0o640}}
			changed <- k.Raw.SetAttr(nil, &in, &fuse.AttrOut{})
		}()
		select {
		case s := <-changed:
			t.Errorf("beside the emptying: %v", s)
			changed <- s
		case <-time.After(100 * time.Millisecond): // it waits for the emptying
		}
		return nil
	})
	in := fuse.SetAttrIn{SetAttrInCommon: fuse.SetAttrInCommon{InHeader: header(f.NodeId), Valid: fuse.FATTR_SIZE}}
	if s := k.Raw.SetAttr(nil, &in, &fuse.AttrOut{}); !s.Ok() {
		t.Fatal(s)
	}
	if int(stores.Load()) <= at {
		return false
	}
	if s := <-changed; !s.Ok() {
		t.Error(s)
	}
	if out := k.lookup(1, "a.raw"); out.NodeId != f.NodeId || out.Mode&0o777 != 0o640 {
		t.Errorf("node %d, mode %o", out.NodeId, out.Mode)
	}
	return true
}
